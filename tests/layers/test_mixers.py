"""What may stand in the Gabor filter's place: closed forms, and inside a model."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import foveate
from foveate.errors import UserError
from foveate.layers.gabor import LearnableGaborFilter
from foveate.layers.mixers import DepthwiseConvolution, MapAttention, Pooling, make_mixer

SMALL = {"widths": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "stem_width": 8, "num_classes": 3}
MIXERS = ("gabor", "attention", "pooling", "convolution", "identity")


def test_pooling_is_the_mean_of_the_neighbours_inside_the_map_less_the_token() -> None:
    x = torch.arange(12, dtype=torch.float64).view(1, 3, 4, 1)
    y = Pooling()(x, nn.Identity())
    assert y[0, 1, 1, 0] == x[0, :3, :3].mean() - x[0, 1, 1, 0]
    assert y[0, 0, 0, 0] == x[0, :2, :2].mean() - x[0, 0, 0, 0]
    assert torch.equal(Pooling()(torch.ones(2, 5, 6, 3), nn.Identity()), torch.zeros(2, 5, 6, 3))


def test_attention_is_the_softmax_of_products_over_all_places() -> None:
    mixer = MapAttention(64).double()
    assert mixer.num_heads == 2 and MapAttention(80).num_heads == 4 and MapAttention(7).num_heads == 1
    x = torch.randn(2, 3, 4, 64, dtype=torch.float64)
    q, k, v = (part.view(2, 12, 2, 32).transpose(1, 2) for part in F.linear(x, mixer.qkv.weight).view(2, 12, 192).split(64, dim=-1))
    heads = torch.softmax(q @ k.transpose(-1, -2) / 32**0.5, dim=-1) @ v
    expected = mixer.proj(heads.transpose(1, 2).reshape(2, 3, 4, 64))
    torch.testing.assert_close(mixer(x, nn.Identity()), expected)
    norm = nn.LayerNorm(64).double()
    torch.testing.assert_close(mixer(x, norm), mixer(norm(x), nn.Identity()))


@pytest.mark.parametrize("activation", ["relu", "gelu", "none"])
@pytest.mark.parametrize("size", [3, 5])
def test_a_free_convolution_with_gabor_kernels_is_the_gabor_filter_baked_or_not(activation: str, size: int) -> None:
    gabor = LearnableGaborFilter(6, kernel_size=size, activation=activation, start="random")
    nn.init.normal_(gabor.bias)
    free = DepthwiseConvolution(6, size, activation)
    with torch.no_grad():
        free.conv.weight.copy_(gabor.kernels()[:, None])
        free.conv.bias.copy_(gabor.bias)
    x, norm = torch.randn(2, 7, 9, 6), nn.LayerNorm(6)
    torch.testing.assert_close(free(x, norm), gabor(x, norm))
    torch.testing.assert_close(gabor.bake()(x, norm), gabor(x, norm))
    assert (gabor(x, norm) < 0).any() == (activation != "relu")


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_mixer_trains_in_a_model_of_any_size_and_is_optimized(mixer: str) -> None:
    torch.manual_seed(0)
    model = foveate.create_model("fvit_tiny", mixer=mixer, **SMALL)
    model(torch.randn(2, 3, 33, 46)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    assert bool(model.no_weight_decay()) == (mixer == "gabor")
    model.eval()
    x = torch.randn(2, 3, 40, 32)
    with torch.no_grad():
        torch.testing.assert_close(foveate.optimize(model, compile=False)(x), model(x), atol=1e-4, rtol=1e-4)


def test_mixers_differ_in_parameters_as_they_should() -> None:
    counts = {mixer: sum(p.numel() for p in foveate.create_model("fvit_tiny", mixer=mixer, **SMALL).parameters()) for mixer in MIXERS}
    widths = SMALL["widths"]
    assert counts["pooling"] == counts["identity"]
    assert counts["convolution"] - counts["identity"] == sum(10 * width for width in widths)
    assert counts["gabor"] - counts["identity"] == sum(9 * width for width in widths)
    assert counts["attention"] - counts["identity"] == sum(4 * width**2 + width for width in widths)


def test_each_stage_may_have_a_mixer_of_its_own() -> None:
    model = foveate.create_model("fvit_tiny", mixer=["gabor", "gabor", "pooling", "attention"], **SMALL)
    kinds = [type(stage.blocks[0].mixer) for stage in model.stages]
    assert kinds == [LearnableGaborFilter, LearnableGaborFilter, Pooling, MapAttention]
    assert model(torch.randn(1, 3, 40, 64)).isfinite().all()
    with pytest.raises((ValueError, UserError), match="mixer: found 2, expected one for all stages or one for each of 4"):
        foveate.create_model("fvit_tiny", mixer=["gabor", "pooling"], **SMALL)


def test_a_frozen_bank_keeps_its_start_and_a_plain_feed_forward_has_no_paths() -> None:
    model = foveate.create_model("fvit_tiny", learn_gabor=False, paths=0, **SMALL)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    mixers = [module for module in model.modules() if isinstance(module, LearnableGaborFilter)]
    assert len(mixers) == 4 and all(p.grad is None and not p.requires_grad for module in mixers for p in module.parameters())
    assert not any(".paths." in name for name, _ in model.named_parameters())
    assert foveate.create_model("fvit_tiny", untouched_paths=1, **SMALL).stages[0].blocks[0].ffn.num_paths == 4


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="mixer: found 'magic', expected one of gabor"):
        make_mixer("magic", 4, nn.Identity, 3, "relu")
    with pytest.raises(ValueError, match="activation: found 'magic'"):
        DepthwiseConvolution(4, 3, "magic")
    with pytest.raises(ValueError, match="activation: found 'magic', expected one of relu, gelu, none"):
        LearnableGaborFilter(4, activation="magic")
    with pytest.raises((ValueError, UserError), match="magic"):
        foveate.create_model("fvit_tiny", mixer="magic", **SMALL)
