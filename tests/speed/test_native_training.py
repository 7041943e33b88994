"""Dropout of the native chains: its rate, that it has no pattern, and that both directions drop the same numbers."""

import pytest
import torch
from torch import Tensor

from foveate.speed.native.training import Dropped, add_residual, can_join, filter_gradients, filter_groups, residual_gradients

pytestmark = pytest.mark.skipif(not can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP")


def kept(seed: int, rate: float, shape: tuple[int, ...] = (4, 20, 20, 64)) -> Tensor:
    """Which numbers a sum with a residual keeps, 0 or 1."""
    levels = round(rate * 65536)
    product, zero = torch.ones(shape), torch.zeros(shape)
    add_residual(zero, product, torch.zeros(shape[-1]), Dropped(seed, levels, 2.0), torch.ones(shape[0]))
    assert set(product.unique().tolist()) <= {0.0, 2.0}
    return product / 2


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_dropout_drops_at_its_rate_without_a_pattern(rate: float) -> None:
    """Counts, and pairs of neighbours in every direction, of other pictures, and under neighbouring seeds, as chance has them."""
    mask = kept(2**40 + 12345, rate).flatten()
    count, deviation = len(mask), (rate * (1 - rate) / len(mask)) ** 0.5
    assert abs(float(mask.mean()) - (1 - rate)) < 5 * deviation
    centred = (mask - mask.mean()) / mask.std()
    for distance in (1, 2, 3, 16, 31, 64, 20 * 64, 400 * 64):
        assert abs(float((centred[distance:] * centred[:-distance]).mean())) < 5 / (count - distance) ** 0.5
    for other in (2**40 + 12346, 2**41 + 12345, 2**40 + 12345 + 2**32, 7):
        beside = kept(other, rate).flatten()
        assert abs(float((centred * (beside - beside.mean()) / beside.std()).mean())) < 5 / count**0.5


def test_both_directions_drop_the_same_numbers() -> None:
    dropped, factors = Dropped(99, 20000, 1.5), torch.tensor([1.0, 0.5, 2.0])
    product, ones = torch.ones(3, 5, 4, 37), torch.ones(3, 5, 4, 37)
    add_residual(torch.zeros_like(ones), product, torch.zeros(37), dropped, factors)
    to_product, to_bias = residual_gradients(ones, dropped, factors)
    assert torch.equal(to_product, product)
    torch.testing.assert_close(to_bias, product.sum(dim=(0, 1, 2)))

    identity = torch.zeros(20, 1, 3, 3)
    weights = [torch.zeros(60), identity, torch.zeros(20)]
    hidden, inner = torch.ones(2, 5, 4, 60), torch.ones(2, 5, 4, 60)
    leaving = filter_groups(hidden, 3, dropped, weights)
    gradients = [torch.zeros_like(weight) for weight in weights]
    again = filter_gradients(hidden, inner, 3, dropped, weights, gradients)
    assert torch.equal(leaving, again)
    assert 0.2 < float((leaving[..., :40] == 0).float().mean()) < 0.4
    assert torch.equal(inner[..., :40], leaving[..., :40])
    torch.testing.assert_close(gradients[0][:40], inner[..., :40].sum(dim=(0, 1, 2)))
