"""Steps that overwrite their input only where no gradient will ask for it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers.in_place import added, batch_norm, gelu
from foveate.layers.products import plus_product

x, y, tokens, weight = torch.randn(6, 8), torch.randn(6, 8), torch.randn(6, 5), torch.randn(8, 5)
STEPS: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = [
    (lambda own: added(own, y), lambda own: own + y),
    (gelu, F.gelu),
    (lambda own: plus_product(own, tokens, weight), lambda own: own + tokens @ weight.T),
]


@pytest.mark.parametrize(("step", "expected"), STEPS)
def test_the_values_are_the_same_and_memory_is_taken_only_with_gradients(step: Callable, expected: Callable) -> None:
    given = x.clone()
    result = step(given)
    torch.testing.assert_close(result, expected(x))
    assert torch.equal(given, x), "gradients may be asked for"
    with torch.no_grad():
        result = step(given)
    assert result.data_ptr() == given.data_ptr()
    torch.testing.assert_close(result, expected(x))


def test_mixed_number_formats_are_added_as_pytorch_adds_them() -> None:
    with torch.no_grad():
        assert torch.equal(added(x.bfloat16(), y), x.bfloat16() + y)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = tokens.bfloat16()
        torch.testing.assert_close(plus_product(x.bfloat16(), half, weight).float(), x + tokens @ weight.T, atol=0.1, rtol=0.05)


def test_batch_norm_with_running_statistics_takes_no_memory() -> None:
    norm = nn.BatchNorm2d(8)
    for parameter in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(parameter)
    given = torch.randn(2, 8, 5, 6)
    before = given.clone()
    torch.testing.assert_close(batch_norm(norm, given), norm(before))
    norm.eval()
    expected = norm(before)
    torch.testing.assert_close(batch_norm(norm, given), expected)
    assert torch.equal(given, before), "gradients may be asked for"
    with torch.no_grad():
        assert batch_norm(norm, given).data_ptr() == given.data_ptr()
        half = batch_norm(norm, before.bfloat16())
    torch.testing.assert_close(given, expected)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.1, rtol=0.02)
