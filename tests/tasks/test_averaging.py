import pytest
import torch
from torch import nn

from foveate.tasks.averaging import WeightAverage


def test_closed_form_with_warm_up():
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.5)
    expected = 0.0
    for n in range(20):
        nn.init.constant_(model.weight, n + 1.0)
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * (n + 1.0)
        assert average.module.weight[0, 0].item() == pytest.approx(expected, rel=1e-6)


def test_running_statistics_are_averaged_and_counters_copied():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    average = WeightAverage(model, decay=0.9)
    for _ in range(3):
        model(torch.randn(8, 3, 5, 5) + 2)
        average.update()
    assert average.module[1].num_batches_tracked == 3
    assert (average.module[1].running_mean - model[1].running_mean).abs().max() > 0


def test_average_is_a_frozen_copy_in_evaluation_mode():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout())
    average = WeightAverage(model, decay=0.9)
    assert not average.module.training
    assert model.training
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_state_restores_weights_and_count():
    model = nn.Linear(3, 3)
    first, second = WeightAverage(model, 0.99), WeightAverage(model, 0.99)
    nn.init.zeros_(model.weight)
    first.update()
    second.load_state_dict(first.state_dict())
    nn.init.ones_(model.weight)
    for average in (first, second):
        average.update()
    assert second.updates == 2
    assert torch.equal(first.module.weight, second.module.weight)
