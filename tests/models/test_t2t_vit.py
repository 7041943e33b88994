import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import gelu

from foveate.factory import create_model
from foveate.models.t2t_study import DenseBlock, GhostMlp, SEAttention
from foveate.models.t2t_vit import Attention


def test_input_size_resizes_the_table_once_and_for_all() -> None:
    model = create_model("t2t_vit_7", depth=1).eval()
    x = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        expected = model(x)
        model.set_input_size((96, 160))
        torch.testing.assert_close(model(x), expected)
    assert model.pos_embed.shape == (1, 1 + 6 * 10, 256)
    assert model.pretrained_cfg["input_size"] == (3, 96, 160)
    assert not model.pos_embed.requires_grad


def test_token_maps_and_class_token_are_handed_out() -> None:
    model = create_model("t2t_vit_7", depth=2).eval()
    pairs = model.forward_intermediates(torch.randn(2, 3, 64, 64), intermediates_only=True, return_prefix_tokens=True)
    assert [None if prefix is None else tuple(prefix.shape) for _, prefix in pairs] == [None, None, (2, 256), (2, 256)]
    flat = model.forward_intermediates(torch.randn(2, 3, 64, 64), intermediates_only=True, output_fmt="NLC")
    assert [tuple(feature.shape) for feature in flat] == [(2, 256, 64), (2, 64, 64), (2, 16, 256), (2, 16, 256)]


def test_without_token_stage_each_patch_is_a_token_by_itself() -> None:
    model = create_model("t2t_vit_7", token_stage="none", depth=2).eval()
    x = torch.randn(2, 3, 40, 64)  # padded at its end to 48 x 64
    maps, tokens = model.token_stage(torch.nn.functional.pad(x, (0, 0, 0, 8)))
    assert maps == [] and model.grid_size((40, 64)) == (3, 4)
    patch = x[:, :, 16:32, 48:64].flatten(1)  # second row, last column
    weight, bias = model.token_stage.patches.weight.flatten(1), model.token_stage.patches.bias
    torch.testing.assert_close(tokens[:, 7], patch @ weight.T + bias, atol=1e-5, rtol=1e-5)
    features = model.forward_intermediates(x, intermediates_only=True)
    assert [tuple(feature.shape) for feature in features] == [(2, 256, 3, 4)] * 2
    assert [entry["reduction"] for entry in model.feature_info] == [16, 16]
    assert create_model("t2t_vit_7", token_stage="none", small_images=True, img_size=32).grid_size((32, 32)) == (8, 8)


def test_without_token_stage_features_are_the_last_map_and_other_channels_are_adapted() -> None:
    backbone = timm.create_model("t2t_vit_7", token_stage="none", features_only=True, depth=2)
    assert [tuple(feature.shape) for feature in backbone(torch.randn(1, 3, 64, 96))] == [(1, 256, 4, 6)]
    grey, colour = (create_model("t2t_vit_7", token_stage="none", depth=1, in_chans=channels) for channels in (1, 3))
    state, changes = grey.adapt_state_dict(colour.state_dict())
    assert [name for name, *_ in changes] == ["token_stage.patches.weight"]
    torch.testing.assert_close(state["token_stage.patches.weight"], colour.token_stage.patches.weight.sum(1, keepdim=True))


def test_without_token_stage_the_size_is_the_papers_but_for_the_embedding() -> None:
    """The paper prints 21.1 M, which leaves no room for 16 * 16 * 3 * 384 weights of the patches."""
    model = create_model("t2t_vit_14", token_stage="none")
    assert f"{sum(p.numel() for n, p in model.named_parameters() if p.requires_grad and 'patches' not in n) / 1e6:.1f}" == "21.1"


def test_mean_of_tokens_as_pooling() -> None:
    model = create_model("t2t_vit_7", depth=1, global_pool="avg").eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x), model.head(model.forward_features(x)[:, 1:].mean(1)))


def test_squeeze_excitation_gates_the_projection_by_the_mean_over_tokens() -> None:
    torch.manual_seed(0)
    layer, plain = SEAttention(32, 4), Attention(32, 4)
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if not name.startswith("se.")})
    norm = nn.LayerNorm(32)
    y = plain(x := torch.randn(2, 6, 32), norm)
    gate = torch.sigmoid(torch.relu(y.mean(1) @ layer.se.fc1.weight.T) @ layer.se.fc2.weight.T)
    torch.testing.assert_close(layer(x, norm), y * gate[:, None])


def test_ghost_mlp_scales_one_third_into_three() -> None:
    mlp, norm = GhostMlp(8, 0.0), nn.LayerNorm(8)
    x1 = gelu(mlp.fc1(norm(x := torch.randn(1, 3, 8))))
    as_conv = [gelu(cheap(x1.transpose(1, 2)).transpose(1, 2)) for cheap in (mlp.cheap_operation2, mlp.cheap_operation3)]
    torch.testing.assert_close(mlp(x, norm), mlp.fc2(torch.cat((x1, *as_conv), -1)))


def test_dense_widths_grow_and_halve() -> None:
    with torch.device("meta"):
        model = create_model("t2t_vit_dense")
    blocks = [block.dense_linear.in_features for block in model.blocks if isinstance(block, DenseBlock)]
    assert blocks[:4] == [128, 192, 256, 160]
    assert model.num_features == 584
    assert len(model.blocks) == 19 + 3


def test_wrong_stage_and_depth_are_refused() -> None:
    with pytest.raises(Exception, match="expected one of performer, transformer, convolution, none"):
        create_model("t2t_vit_7", token_stage="pooling")
    with pytest.raises(Exception, match="sum of the groups"):
        create_model("t2t_vit_dense", depth=4)
