"""Constants folded into weights leave the function as it was, in float64 to the last digits."""

import torch
from torch import nn

from foveate.speed.folding import fold_batch_norm, fold_norm


def randomised(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.double().eval()


def test_a_layer_norm_goes_into_the_linear_layer_behind_it() -> None:
    for bias in (True, False):
        norm, linear = randomised(nn.LayerNorm(7)), randomised(nn.Linear(7, 5, bias=bias))
        x = torch.randn(4, 7, dtype=torch.float64)
        expected = linear(norm(x))
        fold_norm(norm, linear)
        assert not list(norm.parameters())
        torch.testing.assert_close(linear(norm(x)), expected)
        fold_norm(norm, linear)
        torch.testing.assert_close(linear(norm(x)), expected, msg="a second time changes nothing")


def test_a_batch_norm_goes_into_the_convolution_before_it() -> None:
    convolution, norm = randomised(nn.Conv2d(3, 5, 1, bias=False)), randomised(nn.BatchNorm2d(5))
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 3)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(fold_batch_norm(convolution, norm)(x), norm(convolution(x)))
