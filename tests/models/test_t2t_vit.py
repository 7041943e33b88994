import pytest
import torch
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


def test_mean_of_tokens_as_pooling() -> None:
    model = create_model("t2t_vit_7", depth=1, global_pool="avg").eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x), model.head(model.forward_features(x)[:, 1:].mean(1)))


def test_squeeze_excitation_gates_the_projection_by_the_mean_over_tokens() -> None:
    torch.manual_seed(0)
    layer, plain = SEAttention(32, 4), Attention(32, 4)
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if not name.startswith("se.")})
    y = plain(x := torch.randn(2, 6, 32))
    gate = torch.sigmoid(torch.relu(y.mean(1) @ layer.se.fc1.weight.T) @ layer.se.fc2.weight.T)
    torch.testing.assert_close(layer(x), y * gate[:, None])


def test_ghost_mlp_scales_one_third_into_three() -> None:
    mlp = GhostMlp(8, 0.0)
    x1 = gelu(mlp.fc1(x := torch.randn(1, 3, 8)))
    as_conv = [gelu(cheap(x1.transpose(1, 2)).transpose(1, 2)) for cheap in (mlp.cheap_operation2, mlp.cheap_operation3)]
    torch.testing.assert_close(mlp(x), mlp.fc2(torch.cat((x1, *as_conv), -1)))


def test_dense_widths_grow_and_halve() -> None:
    with torch.device("meta"):
        model = create_model("t2t_vit_dense")
    blocks = [block.dense_linear.in_features for block in model.blocks if isinstance(block, DenseBlock)]
    assert blocks[:4] == [128, 192, 256, 160]
    assert model.num_features == 584
    assert len(model.blocks) == 19 + 3


def test_wrong_stage_and_depth_are_refused() -> None:
    with pytest.raises(Exception, match="'performer', 'transformer' or 'convolution'"):
        create_model("t2t_vit_7", token_stage="pooling")
    with pytest.raises(Exception, match="sum of the groups"):
        create_model("t2t_vit_dense", depth=4)
