"""When a checkpoint is due, and that it leaves nothing but itself; that a training goes on from it to the bit is shown in test_train.py."""

import pytest
import torch
from lightning.fabric import Fabric

from foveate.errors import UserError
from foveate.tasks.averaging import WeightAverage
from foveate.tasks.checkpoint import Checkpoint, Position
from foveate.tasks.settings import TrainSettings


@pytest.fixture
def parts(tmp_path):
    fabric = Fabric(accelerator="cpu")
    model = torch.nn.Linear(3, 2)
    wrapped, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    return model, Checkpoint(tmp_path / "resume.ckpt", fabric, wrapped, optimizer, WeightAverage(model, 0.9))


def test_it_is_due_by_steps_or_by_minutes_since_the_last(parts):
    _, checkpoint = parts
    by_steps = TrainSettings(checkpoint_every_steps=4, checkpoint_minutes=0)
    assert [step for step in range(1, 13) if checkpoint.is_due(Position(step=step, minutes=99.0), by_steps)] == [4, 8, 12]
    by_minutes = TrainSettings(checkpoint_every_steps=0, checkpoint_minutes=10)
    assert [minutes for minutes in (9.9, 10.0) if checkpoint.is_due(Position(minutes=minutes), by_minutes)] == [10.0]
    checkpoint.write(Position(step=5, minutes=10.0))
    assert not checkpoint.is_due(Position(minutes=19.9), by_minutes)
    assert not checkpoint.is_due(Position(step=8, minutes=99.0), TrainSettings(checkpoint_every_steps=0, checkpoint_minutes=0))


def test_it_brings_back_weights_average_and_position(parts, tmp_path):
    model, checkpoint = parts
    weights, average = model.weight.detach().clone(), checkpoint.average.module.weight.clone()
    position = Position(step=7, minutes=3.0, epoch_began=4.0, losses=[0.5], rows=[{"epoch": 1.0}])
    checkpoint.write(position)
    assert [file.name for file in tmp_path.iterdir()] == ["resume.ckpt"]
    with torch.no_grad():
        model.weight.add_(1)
        checkpoint.average.update()
    found = checkpoint.read()
    assert torch.equal(model.weight, weights) and torch.equal(checkpoint.average.module.weight, average)
    assert found.step == 7 and found.rows == [{"epoch": 1.0}] and found.epoch_began == 3.0, "the clock stood still from the checkpoint on"


def test_another_number_of_processes_is_refused(parts):
    _, checkpoint = parts
    checkpoint.write(Position())
    state = torch.load(checkpoint.file, weights_only=True)
    torch.save({**state, "processes": 2}, checkpoint.file)
    with pytest.raises(UserError, match="written by 2 processes, found 1 now"):
        checkpoint.read()
