"""T2T-ViT's token layers joined for training learn what they learn by their parts, and step aside, for these, where they should."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import foveate
from foveate.layers.soft_split import split_norm_linear
from foveate.layers.token_layers import TokenPerformer
from foveate.speed.joined.training_token_layers import JoinedTokenPerformerTraining
from foveate.speed.native import performer as native_performer
from joined_modules import joined_copy, random_map
from training_steps import assert_close, assert_gradients_are_slopes, assert_threads_change_nothing, learnt

pytestmark = pytest.mark.skipif(
    not JoinedTokenPerformerTraining.can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP"
)

STEP = "2 token layers joined: native performer attention and passes behind the soft split, forward and backward"


def make_layer(channels: int = 5, width: int = 32, features: int = 16, *, kernel: int = 3, stride: int = 2, drop: float = 0.0) -> Any:
    """A layer in training with random weights everywhere."""
    layer = TokenPerformer(channels * kernel**2, width, kernel, stride, features=features, drop=drop)
    with torch.no_grad():
        for index, (name, parameter) in enumerate(layer.named_parameters()):
            if name != "random_features":
                parameter.copy_(0.3 * random_map(*parameter.shape, seed=index))
    layer.norm1.eps, layer.norm2.eps = 1e-2, 1e-4
    return layer.train()


joined = partial(joined_copy, JoinedTokenPerformerTraining)

FORMS: list[tuple[dict[str, int], tuple[int, ...]]] = [
    ({}, (1, 5, 4, 4)),
    ({}, (3, 5, 15, 22)),
    ({"channels": 3, "width": 64, "features": 32, "kernel": 7, "stride": 4}, (2, 3, 65, 40)),
    ({"width": 16, "features": 48, "stride": 1}, (1, 5, 33, 20)),
]


@pytest.mark.parametrize(("form", "shape"), FORMS, ids=str)
def test_a_joined_layer_learns_as_the_layer(form: dict[str, int], shape: tuple[int, ...]) -> None:
    layer, x = make_layer(**form), random_map(*shape)
    before = x.clone()
    assert_close(learnt(joined(layer), x), learnt(layer.double(), x.double()))
    assert torch.equal(x, before)


@pytest.mark.parametrize("size", [0.0, 1e-3, 30.0])
def test_gradients_hold_at_any_magnitude_of_keys_and_queries(size: float) -> None:
    """Exponents up to the hundreds; where all are alike, and where one key is all that a query hears of."""
    layer, x = make_layer(), random_map(2, 5, 16, 16)
    with torch.no_grad():
        layer.kqv.weight[:64] *= size
        layer.kqv.bias[:64] *= size
    found, exact = learnt(joined(layer), x), learnt(layer.double(), x.double())
    assert_close(found, exact, tolerance=1e-3)


def test_threads_change_nothing_but_rounding() -> None:
    """With more threads than pictures their tokens are shared out."""
    assert_threads_change_nothing(joined(make_layer()), random_map(1, 5, 41, 39))


def test_gradients_go_through_the_numbers_that_dropout_kept() -> None:
    layer, x = make_layer(drop=0.3), random_map(2, 5, 12, 13)
    layer.mlp.inner_drop.p, layer.mlp.drop.p = 0.1, 0.6
    fast = joined(layer)
    assert not torch.equal(fast(x), fast(x))
    assert_gradients_are_slopes(fast, x, step=0.001)


def test_no_dropout_in_evaluation() -> None:
    layer, x = make_layer(drop=0.3).eval(), random_map(2, 5, 12, 13)
    with torch.no_grad():
        torch.testing.assert_close(joined(layer)(x), layer(x), atol=3e-5, rtol=3e-5)


def test_autocast_is_left_as_by_the_layer() -> None:
    layer, x = make_layer(), random_map(2, 5, 12, 13)
    expected = learnt(copy.deepcopy(layer).double(), x.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(learnt(joined(layer), x), expected)
        assert learnt(joined(layer), x.bfloat16())["x"].dtype == torch.bfloat16


def test_a_whole_model_learns_the_same_joined() -> None:
    """Its features, at a size that does not divide; the picture and the frozen weights get no gradients."""
    torch.manual_seed(0)
    plain = foveate.create_model("t2t_vit_7", depth=1, num_classes=5, img_size=(50, 37))
    for layer in plain.token_stage.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    fast, x = copy.deepcopy(plain.train()), torch.randn(3, 3, 50, 37)
    assert foveate.optimize_for_training(fast)[1] == STEP
    assert fast.state_dict().keys() == plain.state_dict().keys()
    gradients = []
    for model in (fast, plain.double()):
        model(x.to(model.head.weight.dtype)).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad})
    assert_close(gradients[0], gradients[1], tolerance=1e-4)


def learning_its_features(layer: Any) -> None:
    layer.random_features.requires_grad_(True)


def hooked(layer: Any) -> None:
    layer.proj.register_forward_hook(lambda *_: None)


def adapted(layer: Any) -> None:
    layer.kqv = nn.Sequential(layer.kqv, nn.Identity())
    layer.forward = lambda x: x.flatten(2).transpose(1, 2)  # the layer itself reads the weights of kqv


def without_gain(layer: Any) -> None:
    layer.norm2 = nn.LayerNorm(32, elementwise_affine=False)


def in_evaluation(layer: Any) -> None:
    layer.eval()


def partly_in_evaluation(layer: Any) -> None:
    layer.mlp.drop.eval()


def in_float64(layer: Any) -> None:
    layer.double()


@pytest.mark.parametrize("change", [learning_its_features, hooked, adapted, without_gain, in_evaluation, partly_in_evaluation, in_float64])
def test_what_the_native_code_is_not_made_for_goes_through_the_layer(
    change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer()
    fast = joined(layer)
    change(layer)
    change(fast)
    monkeypatch.setattr(native_performer, "perform", None)  # would fail
    x = random_map(2, 5, 8, 9).to(layer.proj.weight.dtype)
    found, expected = learnt(fast, x), learnt(layer, x)
    assert all(torch.equal(found[name], value) for name, value in expected.items() if value is not None)


def test_dropout_drops_at_its_rates() -> None:
    """All that is left at the end's rate of one is what comes before it; at the first's and the MLP's the values alone."""
    layer, x = make_layer(drop=1.0), random_map(2, 5, 12, 13)
    values = split_norm_linear(
        x, layer.norm1.weight, layer.norm1.bias, layer.kqv.weight, layer.kqv.bias, layer.kernel, layer.stride, layer.norm1.eps
    )[..., 64:]
    torch.testing.assert_close(joined(layer)(x), values, atol=2e-5, rtol=2e-5)
    for rates in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)):
        layer.drop.p, layer.mlp.inner_drop.p, layer.mlp.drop.p = rates
        torch.testing.assert_close(joined(layer)(x), layer(x), atol=3e-5, rtol=3e-5)


def test_the_gradient_of_a_sum() -> None:
    """Which is one number in memory."""
    layer, x = make_layer(), random_map(2, 5, 12, 13)
    gradients = []
    for model in (joined(layer), copy.deepcopy(layer).double()):
        model(x.to(model.proj.weight.dtype)).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert_close(gradients[0], gradients[1])


def test_frozen_weights_get_no_gradients() -> None:
    fast, x, frozen = joined(make_layer()), random_map(2, 5, 8, 9), ("kqv.weight", "proj.weight", "mlp.fc2.weight", "norm2.bias")
    expected = learnt(fast, x)
    for name in frozen:
        fast.get_parameter(name).requires_grad_(False)
    found = learnt(fast, x)
    assert {name for name, value in found.items() if value is None} == {*frozen, "random_features"}
    assert all(torch.equal(value, expected[name]) for name, value in found.items() if value is not None)
