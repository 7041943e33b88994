from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers import feedforward
from foveate.layers.feedforward import MultiPathFeedForward


class Normed(nn.Module):
    """The layer behind a layer norm with gains and biases of its own."""

    def __init__(self, channels: int, hidden: int, **arguments: Any) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.layer = MultiPathFeedForward(channels, hidden, **arguments)
        for parameter in self.norm.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, self.norm)

    def written_out(self, x: Tensor) -> Tensor:
        return self.layer.drop(self.layer._filtered(self.norm(x)))


@pytest.mark.parametrize(("paths", "untouched"), [(1, 0), (2, 0), (3, 0), (4, 0), (4, 1)])
def test_equation_written_out(paths: int, untouched: int) -> None:
    layer, norm = MultiPathFeedForward(8, 24, paths=paths, untouched=untouched).double(), nn.LayerNorm(8).double()
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    hidden = F.linear(norm(x), layer.fc1.weight, layer.fc1.bias).permute(0, 3, 1, 2)
    groups = hidden.split(24 // paths, dim=1)
    outputs, previous = list(groups[:untouched]), None
    for conv, group in zip(layer.paths, groups[untouched:], strict=True):
        entering = group if previous is None else group + previous
        previous = F.gelu(F.conv2d(entering, conv.weight, conv.bias, padding=1, groups=24 // paths))
        outputs.append(previous)
    expected = F.linear(torch.cat(outputs, 1).permute(0, 2, 3, 1), layer.fc2.weight, layer.fc2.bias)
    torch.testing.assert_close(layer(x, norm), expected, atol=1e-12, rtol=1e-9)


def test_dropout_stands_after_each_linear() -> None:
    layer = Normed(4, 8, drop=1.0)
    assert torch.equal(layer(torch.randn(1, 3, 3, 4)), torch.zeros(1, 3, 3, 4))
    assert not torch.equal(layer.eval()(torch.randn(1, 3, 3, 4)), torch.zeros(1, 3, 3, 4))


def test_gradcheck() -> None:
    layer = Normed(4, 8, paths=4).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    assert torch.autograd.gradcheck(layer, torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize(("paths", "untouched"), [(5, 0), (2, 2), (2, -1)])
def test_uneven_groups_are_refused(paths: int, untouched: int) -> None:
    with pytest.raises(ValueError, match="expected equal groups"):
        MultiPathFeedForward(8, 24, paths=paths, untouched=untouched)


def outcome(layer: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """The output and all gradients, with the dropout of one seed."""
    torch.manual_seed(5)
    own = x.clone().requires_grad_()
    y = run(own)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [own, *layer.parameters()])]


@pytest.mark.parametrize(("paths", "untouched"), [(1, 0), (2, 0), (4, 0), (4, 1), (3, 2)])
@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_training_keeps_less_and_has_the_gradients_of_the_equation(paths: int, untouched: int, drop: float) -> None:
    layer = Normed(8, 24, paths=paths, untouched=untouched, drop=drop).double()
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    written_out = outcome(layer, layer.written_out, x)
    for found, expected in zip(outcome(layer, layer, x), written_out, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-9)


def kept_bytes(run: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Of what is kept for the backward pass, each piece of memory once, without the parameters."""
    pieces: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            pieces[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run(x)
    return sum(pieces.values())


def test_training_keeps_five_bytes_per_hidden_number() -> None:
    layer = Normed(16, 64, paths=4, drop=0.1)
    x = torch.randn(2, 20, 20, 16, requires_grad=True)
    copies = 3 * 4 * sum(p.numel() for p in layer.parameters())
    few = (4 + 1 + 1) * x.numel() + copies  # the input, the last dropout, mean and deviation (8 bytes for 16 numbers), copies of weights
    assert kept_bytes(layer, x) <= 5 * 4 * x.numel() + few
    assert kept_bytes(layer.written_out, x) >= 13 * 4 * x.numel()


def test_autocast_trains_in_its_own_format() -> None:
    layer = Normed(8, 24, paths=2)
    x = torch.randn(2, 5, 7, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        half = outcome(layer, lambda own: layer(own).float(), x)
    for found, expected in zip(half, outcome(layer, layer, x), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=0.05 * expected.abs().max(), rtol=0.1)


@pytest.mark.parametrize("layer_name", ["layer.fc1", "layer.fc2", "layer.paths.1"])
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_in_anothers_place_is_called(layer_name: str, training: bool) -> None:
    normed = Normed(8, 24, paths=3, untouched=1).double().train(training)
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    plain = outcome(normed, normed, x)
    replaced = normed.get_submodule(layer_name)
    calls: list[nn.Module] = []

    class Watched(type(replaced)):  # type: ignore[misc]
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in the class above
            calls.append(self)
            return super().forward(input)

    replaced.__class__ = Watched
    for found, expected in zip(outcome(normed, normed, x), plain, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-9)
    assert calls == [replaced]


@pytest.mark.parametrize("few", [0, 10**9], ids=["as convolutions", "as linear layers"])
def test_both_forms_of_the_linear_layers_give_the_same(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Normed(8, 24, paths=3), torch.randn(2, 5, 7, 8)
    expected = layer(x).detach()
    monkeypatch.setattr(feedforward, "FEW_PIXELS", few)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)
