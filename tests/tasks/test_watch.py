import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

from foveate.errors import UserError
from foveate.tasks.watch import first_non_finite, gather_numbers, stop_non_finite


class Overflowing(nn.Module):
    def forward(self, x):
        return torch.exp(x.abs() * 1e6 + 1e6)


def chain():
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.GELU(), Overflowing()), nn.Linear(4, 2))


def test_names_the_first_module_and_that_its_input_was_finite():
    model, x = chain(), torch.randn(2, 4)
    text = first_non_finite(model, lambda: model(x))
    assert "'1.1' (Overflowing)" in text
    assert "its input was finite" in text


def test_names_broken_weights():
    model, x = chain(), torch.randn(2, 4)
    with torch.no_grad():
        model[0].weight[1, 2] = float("nan")
    text = first_non_finite(model, lambda: model(x))
    assert "'0' (Linear)" in text
    assert "weights were so already (weight)" in text


def test_says_when_the_input_was_broken():
    model, x = chain(), torch.full((2, 4), float("inf"))
    assert "its input was so already" in first_non_finite(model, lambda: model(x))


def test_sound_model_gives_none_and_keeps_no_hooks():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(2, 4)
    assert first_non_finite(model, lambda: model(x)) is None
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("images", "finding", "expected"),
    [
        (torch.ones(1), "the first module is 'a'", "step 7: the first module is 'a'"),
        (torch.tensor([float("nan")]), "the first module is 'a'", "pictures themselves"),
        (torch.ones(1), None, "finite again"),
    ],
)
def test_stops_with_one_line(images, finding, expected):
    with pytest.raises(UserError, match=expected):
        stop_non_finite(Fabric(accelerator="cpu", devices=1), 7, images, finding)


def test_one_process_keeps_its_numbers_exactly():
    assert gather_numbers(Fabric(accelerator="cpu", devices=1), 0.1, 1e300) == [[0.1, 1e300]]
