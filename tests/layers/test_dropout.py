"""Dropout: the rate, the scale, the seed, and the same mask forwards and backwards."""

import pytest
import torch
from torch import nn

from foveate.layers.dropout import LEVELS, Dropout, keep_mask

COUNT = 1_000_003


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.999])
def test_numbers_are_dropped_at_the_rate_and_the_mean_stays(rate: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(rate)(torch.ones(COUNT))
    spread = (rate * (1 - rate) / COUNT) ** 0.5
    assert abs((dropped == 0).double().mean() - rate) < 5 * spread + 1 / LEVELS
    kept = dropped[dropped > 0]
    levels = round(rate * LEVELS)
    assert kept.unique().tolist() == pytest.approx([LEVELS / (LEVELS - levels)])
    assert abs(dropped.double().mean() - 1) < 5 * spread / (1 - rate)


def test_places_are_dropped_independently_of_their_neighbours() -> None:
    torch.manual_seed(1)
    gone = (keep_mask(torch.Size([COUNT]), LEVELS // 4) == 0).double()
    for distance in (1, 2, 3, 4, 8):
        together = (gone[:-distance] * gone[distance:]).mean()
        assert abs(together - 1 / 16) < 5 * (1 / 16 / COUNT) ** 0.5


def test_the_seed_decides_the_mask_and_every_call_has_its_own() -> None:
    drop, x = Dropout(0.5), torch.ones(3, 5, 7)
    torch.manual_seed(3)
    first, second = drop(x), drop(x)
    torch.manual_seed(3)
    assert torch.equal(drop(x), first) and not torch.equal(first, second)


def test_gradients_take_the_same_mask() -> None:
    x = torch.randn(40, 30, dtype=torch.float64, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())
    assert 0 < (x.grad == 0).sum() < x.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_format_and_the_shape_stay(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=dtype)
    y = Dropout(0.5)(x)
    assert y.dtype == dtype and y.shape == x.shape


def test_nothing_is_dropped_in_evaluation_or_at_rate_0_and_everything_at_1() -> None:
    x = torch.randn(100)
    assert torch.equal(Dropout(0.5).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1.0)(x), nn.Dropout(1.0)(x))
