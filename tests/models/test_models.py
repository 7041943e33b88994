"""The contract of every model, and the published sizes of each."""

import math

import pytest
import timm
import timm.optim
import torch
from torch import nn

from foveate.factory import create_model, list_models

# Parameters in millions, to the last printed digit of the published tables (frozen tables counted); the paper family has no such table.
PARAMETERS = {
    "fvit_tiny_dp": 12.504,
    "fvit_small_dp": 25.977,
    "fvit_base_dp": 44.831,
    "fvit_large_dp": 64.487,
    "t2t_vit_7": 4.310,
    "t2t_vit_10": 5.889,
    "t2t_vit_12": 6.942,
    "t2t_vit_14": 21.546,
    "t2t_vit_19": 39.177,
    "t2t_vit_24": 64.106,
    "t2t_vit_t_14": 21.541,
    "t2t_vit_t_19": 39.173,
    "t2t_vit_t_24": 64.101,
    "t2t_vit_14_resnext": 21.546,
    "t2t_vit_14_wide": 25.156,
    "t2t_vit_14_se": 21.804,
    "t2t_vit_dense": 23.647,
    "t2t_vit_16_ghost": 16.253,
}
SMALLEST = ["fvit_tiny", "fvit_tiny_dp", "t2t_vit_7", "t2t_vit_t_14", "t2t_vit_c_14", "t2t_vit_14_se", "t2t_vit_dense", "t2t_vit_16_ghost"]


def shallow(name: str, **options: object) -> nn.Module:
    """A model of the same family with fewer blocks, which behaves alike and costs less."""
    if name == "t2t_vit_dense":
        return create_model(name, **{"num_classes": 5, "groups": (1, 2), "depth": 3, **options})
    return create_model(name, **{"num_classes": 5, **({"depths": (1, 1, 1, 1)} if name.startswith("fvit") else {"depth": 2}), **options})


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_count(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.3f}" == f"{PARAMETERS[name]:.3f}"


def test_convolutional_token_stage_has_the_papers_size() -> None:
    model = create_model("t2t_vit_c_14")
    assert f"{sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6:.1f}" == "21.3"


def test_every_name_is_known_to_timm() -> None:
    assert set(list_models("fvit*")) == set(timm.list_models("fvit*"))
    assert set(list_models("t2t*")) == set(timm.list_models("t2t*"))
    assert len(list_models()) == 27


@pytest.mark.parametrize("name", list_models())
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=7, img_size=64).train()
    loss = nn.functional.cross_entropy(model(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all(), parameter_name
            assert parameter.grad.abs().max() > 0, parameter_name
        else:
            assert parameter_name == "pos_embed" or parameter_name.endswith("random_features")
    kept_out = model.no_weight_decay()
    gabor = {n for n, _ in model.named_parameters() if ".mixer." in n}
    assert gabor <= kept_out
    assert bool(gabor) == name.startswith("fvit")


@pytest.mark.parametrize("small_images", [False, True])
@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("size", [(16, 16), (33, 47), (64, 17), (70, 96)])
def test_any_size_gives_ceil_maps_and_finite_logits(name: str, size: tuple[int, int], small_images: bool) -> None:
    model = shallow(name, small_images=small_images).eval()
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        logits, maps = model(x), model.forward_intermediates(x, intermediates_only=True)
    assert logits.shape == (2, 5)
    assert torch.isfinite(logits).all()
    for feature, info in zip(maps, model.feature_info, strict=True):
        assert feature.shape[1:] == (info["num_chs"], *(math.ceil(n / info["reduction"]) for n in size)), info["module"]


@pytest.mark.parametrize("name", SMALLEST)
def test_small_picture_form_throws_less_away(name: str) -> None:
    model = shallow(name, small_images=True).eval()
    last = model.forward_intermediates(torch.randn(1, 3, 32, 32), intermediates_only=True)[-1]
    assert last.shape[2:] == ((4, 4) if name.startswith("fvit") else (8, 8))


@pytest.mark.parametrize("in_chans", [1, 3, 4, 13])
@pytest.mark.parametrize("name", ["fvit_tiny_dp", "t2t_vit_7", "t2t_vit_t_14", "t2t_vit_c_14"])
def test_published_first_layers_fit_other_channels(name: str, in_chans: int) -> None:
    source, target = shallow(name).eval(), shallow(name, in_chans=in_chans).eval()
    fitted, changes = target.adapt_state_dict(source.state_dict())
    target.load_state_dict(fitted)
    assert bool(changes) == (in_chans != 3)
    assert torch.isfinite(target(torch.randn(1, in_chans, 32, 32))).all()
    first = source.pretrained_cfg["first_conv"] + ".weight"
    before, after = (
        state[first].reshape(len(state[first]), -1, 3 if "stem" in first else 7, 3 if "stem" in first else 7)
        for state in (source.state_dict(), fitted)
    )
    # Pictures whose channels are all alike keep their strength: one channel stands for the sum, more channels share it in turn.
    expected = before.sum(1, keepdim=True) if in_chans == 1 else before[:, torch.arange(in_chans) % 3] * 3 / in_chans
    torch.testing.assert_close(after, expected)


def test_one_channel_sees_a_grey_picture_as_three_do() -> None:
    source, target = shallow("fvit_tiny_dp").eval(), shallow("fvit_tiny_dp", in_chans=1).eval()
    target.load_state_dict(target.adapt_state_dict(source.state_dict())[0])
    grey = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(target(grey), source(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", SMALLEST)
def test_timm_contract(name: str) -> None:
    model = shallow(name).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = model.forward_features(x)
        assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
        torch.testing.assert_close(model.forward_head(features), model(x))
        final, maps = model.forward_intermediates(x, indices=1, norm=True)
        torch.testing.assert_close(final, features)
        assert len(maps) == 1
    assert model.get_classifier().out_features == 5
    model.reset_classifier(11)
    assert model(x).shape == (2, 11)
    model.reset_classifier(0)
    assert model(x).shape == (2, model.head_hidden_size)
    assert model.pretrained_cfg["interpolation"] == "bicubic"
    assert round(224 / model.pretrained_cfg["crop_pct"]) == (256 if name.startswith("fvit") else 248)


@pytest.mark.parametrize("name", SMALLEST)
def test_features_only_through_timm(name: str) -> None:
    model = timm.create_model(name, features_only=True).eval()
    reductions, channels = model.feature_info.reduction(), model.feature_info.channels()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 65, 96))
    assert reductions == ([4, 8, 16, 32] if name.startswith("fvit") else [4, 8, 16])
    for feature, reduction, width in zip(maps, reductions, channels, strict=True):
        assert feature.shape == (1, width, math.ceil(65 / reduction), 96 // reduction)
    early = timm.create_model(name, features_only=True, out_indices=(0, 1)).eval()
    assert sum(p.numel() for p in early.parameters()) < sum(p.numel() for p in model.parameters())
    assert len(early(torch.randn(1, 3, 32, 32))) == 2


@pytest.mark.parametrize("name", SMALLEST)
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    model = shallow(name, drop_path_rate=0.0, proj_drop_rate=0.0).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = torch.randn(2, 3, 32, 32)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize("name", ["fvit_tiny", "fvit_tiny_dp", "t2t_vit_7", "t2t_vit_dense"])
def test_layer_decay_groups_cover_everything_in_order(name: str) -> None:
    model = create_model(name)
    groups = timm.optim.param_groups_layer_decay(model, weight_decay=0.1, layer_decay=0.5)
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    learnable = dict(model.named_parameters())
    assert set(scales) == {id(p) for p in learnable.values() if p.requires_grad}
    first = "stem.conv1.weight" if name.startswith("fvit") else "token_stage.layer1.kqv.weight"
    assert scales[id(learnable[first])] == min(scales.values())
    assert scales[id(learnable["head.weight"])] == 1.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["t2t_vit_7", "t2t_vit_t_14", "fvit_tiny", "fvit_tiny_dp"])
def test_half_precision_survives_huge_inputs(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = shallow(name).train()
    x = 100 * torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", dtype):
        logits = model(x)
    nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1])).backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", SMALLEST)
def test_compiles_without_graph_breaks_and_exports(name: str) -> None:
    model = shallow(name).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(x), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_compiles_to_machine_code(name: str) -> None:
    model = shallow(name).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x), atol=1e-4, rtol=1e-4)
