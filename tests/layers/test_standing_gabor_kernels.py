"""Passes without gradients make Gabor kernels once, and again whenever a parameter has other numbers, however it got them."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from foveate.layers import gabor
from foveate.layers.gabor import LearnableGaborFilter

PARAMETERS = ("frequency", "orientation", "phase", "aspect_ratio", "sharpness", "shift_x", "shift_y", "amplitude")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every time that kernels are made."""
    times: list[int] = []
    make = gabor.gabor_kernels

    def counted(*args: Any, **options: Any) -> Tensor:
        times.append(1)
        return make(*args, **options)

    monkeypatch.setattr(gabor, "gabor_kernels", counted)
    return times


def make_filter(shared: bool = False, seed: int = 0) -> LearnableGaborFilter:
    torch.manual_seed(seed)
    return LearnableGaborFilter(8, shared=shared, start="random").eval()


def response(layer: nn.Module, size: int = 5) -> Tensor:
    x = torch.randn(2, size, 4, 8, generator=torch.Generator().manual_seed(1)).to(next(layer.parameters()).dtype)
    y: Tensor = layer(x, nn.Identity())
    return y


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_kernels_are_made_once(shared: bool, without_gradients: Callable[[], Any], made: list[int]) -> None:
    layer = make_filter(shared)
    with without_gradients():
        first, second, larger = response(layer), response(layer), response(layer, 9)
    assert len(made) == 1
    torch.testing.assert_close(first, response(layer).detach(), atol=0, rtol=0)
    assert torch.equal(first, second) and larger.shape[1] == 9


def through_data(layer: LearnableGaborFilter, name: str) -> None:
    getattr(layer, name).data += 0.3


def in_place(layer: LearnableGaborFilter, name: str) -> None:
    with torch.no_grad():
        getattr(layer, name)[3] += 0.3


def another_parameter(layer: LearnableGaborFilter, name: str) -> None:
    setattr(layer, name, nn.Parameter(getattr(layer, name).detach() + 0.3))


def one_for_all(layer: LearnableGaborFilter, name: str) -> None:
    """A parameter that the others are broadcast with."""
    setattr(layer, name, nn.Parameter(torch.full((8 if name == "bias" else 1,), 0.7)))


class Doubled(nn.Module):
    """A parametrization: what the layer sees is twice what is learnt."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def parametrized(layer: LearnableGaborFilter, name: str) -> None:
    parametrize.register_parametrization(layer, name, Doubled())
    with torch.inference_mode():
        response(layer)
    with torch.no_grad():
        layer.get_parameter(f"parametrizations.{name}.original").add_(0.2)


def loaded(layer: LearnableGaborFilter, name: str) -> None:
    state = layer.state_dict()
    layer.load_state_dict(state | {name: state[name] + 0.3})


@pytest.mark.parametrize("change", [through_data, in_place, another_parameter, one_for_all, parametrized, loaded])
@pytest.mark.parametrize("name", [*PARAMETERS, "bias"])
def test_what_changes_is_seen(change: Callable[[LearnableGaborFilter, str], None], name: str) -> None:
    layer = make_filter()
    with torch.inference_mode():
        before = response(layer)
    change(layer, name)
    expected = response(layer).detach()
    with torch.inference_mode():
        found = response(layer)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(found, before, atol=1e-4)


def test_another_side_is_seen() -> None:
    layer = make_filter()
    with torch.no_grad():
        response(layer)
        layer.kernel_size = 5
        found = response(layer)
    torch.testing.assert_close(found, response(layer).detach(), atol=1e-6, rtol=1e-6)


def test_a_step_of_an_optimizer_is_seen() -> None:
    layer = make_filter()
    with torch.no_grad():
        before = response(layer)
    response(layer.train()).square().sum().backward()
    torch.optim.AdamW(layer.parameters(), lr=0.1).step()
    with torch.no_grad():
        found = response(layer.eval())
    assert not torch.allclose(found, before, atol=1e-3)
    torch.testing.assert_close(found, response(layer).detach(), atol=1e-6, rtol=1e-6)


def test_gradients_are_those_of_kernels_made_in_the_same_pass(made: list[int]) -> None:
    layer = make_filter()
    with torch.inference_mode():
        response(layer)
    response(layer).sum().backward()
    assert len(made) == 2
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def test_another_number_format_has_its_own() -> None:
    layer = make_filter()
    with torch.inference_mode():
        response(layer)
        exact = response(layer.double())
    torch.testing.assert_close(exact, response(layer).detach())
    assert exact.dtype == torch.float64


def test_copies_and_files_have_their_own() -> None:
    layer, file = make_filter(), io.BytesIO()
    with torch.inference_mode():
        expected = response(layer)
    copied = copy.deepcopy(layer)
    torch.save(layer, file)
    file.seek(0)
    with torch.no_grad():
        for other in (copied, torch.load(file, weights_only=False)):
            assert torch.equal(response(other), expected)
            assert other.state_dict().keys() == layer.state_dict().keys() == {*PARAMETERS, "bias"}
        copied.amplitude.mul_(2)
        assert not torch.equal(response(copied), expected)
        assert torch.equal(response(layer), expected)


class Alone(nn.Module):
    """A filter without a norm before it."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = make_filter()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.filter(x, nn.Identity())
        return y


def test_whoever_watches_sees_them_made(made: list[int]) -> None:
    model, x = Alone().eval(), torch.zeros(1, 5, 4, 8)
    with torch.no_grad():
        model(x)
        model(x)
        assert len(made) == 1
        with FlopCounterMode(display=False):
            model(x)
        assert len(made) == 2
        torch.jit.trace(model, x, check_trace=False)
    assert len(made) == 3
