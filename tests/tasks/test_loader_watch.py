"""The waiting for pictures is measured as it is, and said once where it is too much. A clock that is moved by hand stands for time."""

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric import Fabric
from rich.console import Console
from torch import nn

from foveate.data.transforms import moved
from foveate.tasks import loader_watch
from foveate.tasks.checkpoint import Position
from foveate.tasks.loop import Length, Training
from foveate.tasks.progress import Report
from foveate.tasks.settings import TrainSettings

SETTINGS = TrainSettings(data="none", epochs=100, evaluate_every=1, checkpoint_minutes=0, warmup_epochs=0)
EVALUATION = 1000.0


class Clock:
    def __init__(self):
        self.now = 5.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loader_watch, "time", clock)
    return clock


class Model(nn.Linear):
    def get_classifier(self):
        return self


class Task:
    """A step takes one second, an evaluation a thousand."""

    examples = SimpleNamespace(finish=moved)

    def __init__(self, clock):
        self.clock = clock

    def parts(self, batch, count, random):
        return [batch]

    def loss(self, forward, part):
        self.clock.now += 1.0
        return forward(part["image"]).mean()

    def results(self, fabric, forward):
        self.clock.now += EVALUATION
        return SimpleNamespace(figures=lambda: {"top1": 0.5})


def batches(clock, steps, seconds):
    """What takes `seconds` to load; `seconds` may be a function of the step."""
    for step in range(steps):
        clock.now += seconds(step) if callable(seconds) else seconds
        yield {"image": torch.ones(2, 3)}


def trained(clock, tmp_path, steps, steps_per_epoch, seconds, position=None):
    """The rows of the metrics, and the lines said to the user."""
    output, rows = io.StringIO(), []
    report = Report(Console(file=output, width=40), steps, lambda every: rows.extend(every[len(rows) :]))
    length = Length(steps, steps_per_epoch, 2)
    fabric = Fabric(accelerator="cpu", devices=1)
    training = Training(fabric, Model(3, 1), replace(SETTINGS, epochs=steps // steps_per_epoch), length, tmp_path / "c.ckpt", report)
    training.position = position or training.position
    with report:
        training.run(Task(clock), batches(clock, steps, seconds))
    return rows, output.getvalue().splitlines()


def complaints(lines):
    return [line for line in lines if "of the time goes into waiting" in line]


@pytest.mark.parametrize("steps_per_epoch", [2, 10, 30])
def test_a_slow_loader_is_measured_and_complained_of_once(clock, tmp_path, steps_per_epoch):
    """Three seconds for a batch that is used up in one."""
    rows, lines = trained(clock, tmp_path, 60, steps_per_epoch, 3.0)
    assert [row["loader_share"] for row in rows] == pytest.approx([0.75] * (60 // steps_per_epoch))
    [line] = complaints(lines)
    assert line.startswith("75% of the time goes into waiting for pictures")
    assert sum("waiting for pictures 75%" in line for line in lines) == len(rows)


def test_a_fast_loader_is_measured_and_not_complained_of(clock, tmp_path):
    rows, lines = trained(clock, tmp_path, 60, 20, 0.25)
    assert [row["loader_share"] for row in rows] == pytest.approx([0.2] * 3)
    assert not complaints(lines)


def test_workers_that_start_slowly_are_no_reason_to_complain(clock, tmp_path):
    rows, lines = trained(clock, tmp_path, 60, 20, lambda step: 500.0 if step == 0 else 0.1)
    assert rows[0]["loader_share"] > 0.9
    assert rows[1]["loader_share"] == pytest.approx(0.1 / 1.1)
    assert not complaints(lines)


def test_a_long_epoch_is_judged_after_fifty_steps(clock, tmp_path):
    """What comes later changes nothing."""
    for late, expected in ((3.0, 0), (0.0, 1)):
        _, lines = trained(clock, tmp_path, 80, 80, lambda step, late=late: late if step >= 50 else 3.0 - late)
        assert len(complaints(lines)) == expected


def test_a_cut_epoch_goes_on_with_the_times_of_its_first_part(clock, tmp_path):
    """As a checkpoint of an older version does, which has none."""
    cut = Position(step=5, seconds=10.0, waited=10.0, losses=[1.0] * 5)
    rows, _ = trained(clock, tmp_path, 10, 10, 0.0, cut)
    assert rows[0]["loader_share"] == pytest.approx(10.0 / 15.0)
    old = {name: value for name, value in vars(Position(step=5, losses=[1.0] * 5)).items() if name not in ("seconds", "waited")}
    rows, _ = trained(clock, tmp_path, 10, 10, 1.0, Position(**old))
    assert rows[0]["loader_share"] == pytest.approx(0.5)
