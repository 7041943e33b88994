import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foveate.layers.feedforward import MultiPathFeedForward


@pytest.mark.parametrize(("paths", "untouched"), [(1, 0), (2, 0), (3, 0), (4, 0), (4, 1)])
def test_equation_written_out(paths: int, untouched: int) -> None:
    layer = MultiPathFeedForward(8, 24, paths=paths, untouched=untouched).double()
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    hidden = F.linear(x, layer.fc1.weight, layer.fc1.bias).permute(0, 3, 1, 2)
    groups = hidden.split(24 // paths, dim=1)
    outputs, previous = list(groups[:untouched]), None
    for conv, group in zip(layer.paths, groups[untouched:], strict=True):
        entering = group if previous is None else group + previous
        previous = F.gelu(F.conv2d(entering, conv.weight, conv.bias, padding=1, groups=24 // paths))
        outputs.append(previous)
    expected = F.linear(torch.cat(outputs, 1).permute(0, 2, 3, 1), layer.fc2.weight, layer.fc2.bias)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=1e-9)


def test_dropout_stands_after_each_linear() -> None:
    layer = MultiPathFeedForward(4, 8, drop=1.0)
    assert torch.equal(layer(torch.randn(1, 3, 3, 4)), torch.zeros(1, 3, 3, 4))
    assert not torch.equal(layer.eval()(torch.randn(1, 3, 3, 4)), torch.zeros(1, 3, 3, 4))


def test_gradcheck() -> None:
    layer = MultiPathFeedForward(4, 8, paths=4).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    assert torch.autograd.gradcheck(layer, torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize(("paths", "untouched"), [(5, 0), (2, 2), (2, -1)])
def test_uneven_groups_are_refused(paths: int, untouched: int) -> None:
    with pytest.raises(ValueError, match="expected equal groups"):
        MultiPathFeedForward(8, 24, paths=paths, untouched=untouched)
