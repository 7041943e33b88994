import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from foveate.card import ModelCard
from foveate.cli import run_verb
from foveate.errors import UserError
from foveate.opening import open_model
from foveate.run import RunFolder
from foveate.speed.native.training import can_join
from foveate.tasks.settings import TrainSettings
from foveate.verbs import train as module
from foveate.verbs.evaluate import evaluate
from foveate.verbs.train import train
from foveate.verbs.training_plan import tell_warnings
from foveate.verbs.training_result import TrainResult

PLAIN = {
    "mixup": 0.0,
    "cutmix": 0.0,
    "drop_path": 0.0,
    "ema_decay": 0.0,
    "model": "test_convnext",
    "model_options": {},
    "img_size": 32,
    "optimizer": "sgd",
}
"""Without batch statistics, mixing and dropout, how a batch is cut up makes no difference; SGD's steps are as exact as the gradients."""

CHILD = """
import os, signal, sys
from foveate.tasks import loop
from foveate.tasks.settings import TrainSettings
from foveate.verbs import train as module
from foveate.verbs.train import train

real, done = loop.set_learning_rate, [0]

def dying(optimizer, rate):
    if done[0] == 5:
        os.kill(os.getpid(), int(sys.argv[2]))
    done[0] += 1
    real(optimizer, rate)

loop.set_learning_rate = dying
module.MANY_STEPS = int(sys.argv[3])
train(TrainSettings.from_plain(eval(sys.argv[1])))
"""


def stopped_after_five_steps(settings, kind=signal.SIGKILL):
    """`train(settings)` in a process of its own that sends itself a signal before its sixth step; what it said."""
    arguments = [sys.executable, "-c", CHILD, repr(settings.plain()), str(int(kind)), str(module.MANY_STEPS)]
    done = subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=200, check=False)
    assert done.returncode == -kind, done.stderr
    return done.stderr


@contextmanager
def one_thread():
    """As many threads as the killed process has: sums in another order may differ in their last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows_of(run):
    with run.metrics.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    settings = replace(tiny, out=tmp_path_factory.mktemp("runs") / "run", tensorboard=True)
    return settings, train(settings)


def test_run_folder_is_complete(trained):
    settings, result = trained
    run = RunFolder(result.run)
    files = (run.weights, run.card, run.recipe, run.metrics, run.checkpoint, run.curves, run.confusion, run.examples, run.filters)
    assert all(file.stat().st_size > 0 for file in files)
    assert {file.name for file in run.path.iterdir()} == {*(file.name for file in files), "tensorboard"}, "nothing temporary is left"
    assert any((run.path / "tensorboard").iterdir())
    assert [(row["epoch"], row["step"]) for row in rows_of(run)] == [("1", "4"), ("2", "8")]
    assert TrainSettings.from_plain(run.read_recipe()) == replace(settings, out=None, precision="fp32")


def test_card_holds_what_the_model_needs(trained):
    _, result = trained
    model, card = open_model(result.run)
    assert card.class_names == ("one", "two", "zero")
    assert card.preprocessing.size == (16, 16)
    assert card.results == result.figures
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
    assert ModelCard.from_json(RunFolder(result.run).card.read_text()) == card


def test_shipped_weights_are_the_averaged_ones_and_both_were_measured(trained):
    _, result = trained
    run = RunFolder(result.run)
    average = torch.load(run.checkpoint, weights_only=True)["average"]["weights"]
    shipped = load_file(run.weights)
    assert all(torch.equal(shipped[name], value) for name, value in average.items())
    last = rows_of(run)[-1]
    assert float(last["averaged_val_loss"]) == pytest.approx(result.figures["loss"], rel=1e-5)
    assert float(last["val_loss"]) == pytest.approx(result.figures["last_loss"], rel=1e-5)
    assert last["val_loss"] != last["averaged_val_loss"]


def test_evaluate_finds_the_figures_that_training_reported(trained, digit_folder):
    _, result = trained
    evaluation = evaluate(result.run, str(digit_folder), accelerator="cpu", num_workers=0, batch_size=8)
    assert evaluation.pictures == result.pictures == 17
    assert evaluation.figures == {name: result.figures[name] for name in ("loss", "top1")}


def test_result_for_people_and_programs(trained):
    _, result = trained
    assert "17 held-out pictures" in str(result)
    assert f"{result.figures['top1']:.2%}" in str(result)
    assert json.loads(result.to_json())["steps"] == 8


@pytest.fixture(scope="module")
def ten_steps(tiny, tmp_path_factory):
    """The settings of five epochs of two steps, and the run that nobody interrupted."""
    settings = replace(tiny, epochs=5, batch_size=9, accumulate=2, evaluate_every=2, clip_grad=1.0)
    with one_thread():
        result = train(replace(settings, out=tmp_path_factory.mktemp("ten") / "whole"))
    assert result.steps == 10
    return settings, RunFolder(result.run)


@pytest.mark.parametrize("checkpoint_every", [5, pytest.param(0, marks=pytest.mark.slow)], ids=["within an epoch", "at its end"])
def test_killed_and_resumed_training_equals_the_uninterrupted_one_to_the_bit(checkpoint_every, ten_steps, tmp_path):
    """10 steps against 5, kill -9, and a resume from the last checkpoint, that of step 5 or 4."""
    settings, whole = ten_steps
    cut = RunFolder(tmp_path / "cut")
    stopped_after_five_steps(replace(settings, checkpoint_every_steps=checkpoint_every, out=cut.path))
    assert not cut.weights.exists()
    assert torch.load(cut.checkpoint, weights_only=True)["position"]["step"] == (checkpoint_every or 4)
    with one_thread():
        train(TrainSettings(resume=cut.path))

    first, second = (torch.load(run.checkpoint, weights_only=True) for run in (whole, cut))
    for part in ("model", "average", "optimizer"):
        assert same(first[part], second[part]), part
    assert same(load_file(whole.weights), load_file(cut.weights))
    timed = {"minutes", "images_per_second", "loader_share"}
    untimed = [
        [{name: v for name, v in row.items() if name not in timed} for row in state["position"]["rows"]] for state in (first, second)
    ]
    assert untimed[0] == untimed[1], "losses and figures, each epoch once"
    assert [row["epoch"] for row in rows_of(cut)] == ["1", "2", "3", "4", "5"]
    assert [bool(row["val_loss"]) for row in rows_of(cut)] == [False, True, False, True, True]


@pytest.mark.skipif(not can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP")
def test_a_long_training_is_joined_and_goes_on_to_the_bit_too(tiny, tmp_path, monkeypatch, capsys):
    """From so many steps on; its weights are those of any model."""
    settings = replace(tiny, epochs=5, batch_size=9, accumulate=2, evaluate_every=5, checkpoint_every_steps=5)
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    monkeypatch.setattr(module, "MANY_STEPS", 10)
    with one_thread():
        train(replace(settings, out=whole.path))
        assert "4 blocks joined: native chains" in capsys.readouterr().err
        stopped_after_five_steps(replace(settings, out=cut.path))
        train(TrainSettings(resume=cut.path))
    assert same(load_file(whole.weights), load_file(cut.weights))
    assert evaluate(cut.path, settings.data).figures == evaluate(whole.path, settings.data).figures


@pytest.mark.parametrize(("steps", "changes"), [(99, {}), (100, {"compile": True}), (100, {"strategy": "fsdp"})])
def test_a_short_training_and_one_that_is_compiled_or_sharded_is_not_joined(steps, changes):
    """Asked for nothing of its model, which so may be none."""
    fabric, stream = SimpleNamespace(device=torch.device("cpu")), SimpleNamespace(total_steps=steps)
    module._speed_up(fabric, replace(TrainSettings(), **changes), None, stream, None)


def test_an_interrupted_training_keeps_its_last_step_and_goes_on_to_the_bit(ten_steps, tmp_path):
    settings, whole = ten_steps
    cut = RunFolder(tmp_path / "cut")
    said = stopped_after_five_steps(replace(settings, out=cut.path), signal.SIGINT)
    assert "writing a checkpoint after this step" in said
    assert f"step 6 is kept; go on with: foveate train --resume {cut.path}" in said
    assert torch.load(cut.checkpoint, weights_only=True)["position"]["step"] == 6
    with one_thread():
        train(TrainSettings(resume=cut.path))
    assert same(load_file(whole.weights), load_file(cut.weights))


def same(left, right):
    """Equal in structure and to the bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return left == right


def test_same_settings_give_the_same_bits(trained, tmp_path):
    settings, result = trained
    again = train(replace(settings, deterministic=True, out=tmp_path / "again"))
    assert same(load_file(RunFolder(again.run).weights), load_file(RunFolder(result.run).weights))
    assert again.figures == result.figures
    assert not torch.are_deterministic_algorithms_enabled(), "the caller's choice is back"


@pytest.fixture(scope="module")
def plain_weights(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "run"
    train(replace(tiny, **PLAIN, epochs=1, out=out))
    return load_file(RunFolder(out).weights)


@pytest.mark.parametrize(
    "cut", [{"batch_size": 4, "accumulate": 2}, {"batch_size": 4, "devices": 2, "strategy": "ddp"}], ids=["accumulated", "two processes"]
)
def test_a_batch_in_parts_gives_the_same_weights(cut, tiny, plain_weights, tmp_path):
    """The gradient of the mean is the mean of the gradients, over accumulated parts and over real processes alike."""
    result = train(replace(tiny, **PLAIN, epochs=1, out=tmp_path / "run", **cut))
    assert result.steps == 4
    assert result.pictures == 17
    for name, value in load_file(RunFolder(result.run).weights).items():
        torch.testing.assert_close(value, plain_weights[name], rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.slow
def test_an_error_on_one_process_ends_all(tiny, digit_folder, tmp_path):
    """The first process finds a broken picture while the second waits for it."""
    broken = tmp_path / "data"
    for file in digit_folder.rglob("*.png"):
        target = broken / file.relative_to(digit_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    victim = next((broken / "train" / "two").iterdir())
    victim.write_bytes(victim.read_bytes()[:60])
    start = time.monotonic()
    with pytest.raises(UserError, match=victim.name):
        train(replace(tiny, data=str(broken), devices=2, out=tmp_path / "run"))
    assert time.monotonic() - start < 120, "nobody waited for the time-out of a collective operation"
    assert not (tmp_path / "run").exists()


def test_the_rarer_switches_together(tiny, tmp_path):
    """bf16, grey pictures, SGD with layer decay, both ways of balancing, recomputed activations, shifted crops."""
    switches = {"precision": "bf16", "in_chans": 1, "optimizer": "sgd", "layer_decay": 0.8, "backbone_lr_scale": 0.5, "crop": "pad"}
    switches |= {"class_weights": "balanced", "balanced_sampling": True, "grad_checkpointing": True, "rand_augment": 0}
    result = train(replace(tiny, **switches, epochs=1, out=tmp_path / "run"))
    assert np.isfinite(list(result.figures.values())).all()
    _, card = open_model(result.run)
    assert card.preprocessing.channels == 1


def test_warnings_on_the_pictures_are_told_before_the_first_epoch(tiny, digit_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    data = tmp_path / "data"
    shutil.copytree(digit_folder, data)
    shared = next((data / "train" / "two").iterdir())
    shutil.copy(shared, data / "val" / "two" / "again.png")
    train(replace(tiny, data=str(data), epochs=1, out=tmp_path / "run"))
    lines = capsys.readouterr().err.splitlines()
    place = lines.index("1 warning:")
    assert lines[place + 1].startswith(f"  same pictures in two splits: 1 (val/two/again.png = train/two/{shared.name})")
    assert [line for line in lines[place + 2 :] if line.startswith("epoch 1")], "told before it"


def test_many_warnings_are_counted_and_some_are_told():
    console = Console(file=io.StringIO(), width=40)
    tell_warnings(console, (), "here")
    assert console.file.getvalue() == ""
    tell_warnings(console, [f"warning number {number} of [a class]" for number in range(8)], "here")
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "8 warnings:" and lines[1:6] == [f"  warning number {number} of [a class]" for number in range(5)]
    assert lines[6:] == ["  ... and 3 more; foveate doctor here lists all"]


def test_non_finite_loss_stops_and_names_a_module(tiny, tmp_path):
    with pytest.raises(UserError, match=r"not finite at step [1-8]: the first module .* is '\w+") as stop:
        train(replace(tiny, lr=1e30, warmup_epochs=0, out=tmp_path / "run"))
    assert "--lr" in str(stop.value)


@pytest.mark.slow
def test_non_finite_loss_stops_both_processes(tiny, tmp_path):
    with pytest.raises(UserError, match=r"not finite at step [1-8] of process [01]: the first module"):
        train(replace(tiny, lr=1e30, warmup_epochs=0, batch_size=4, devices=2, out=tmp_path / "run"))


def test_time_limit_ends_early_with_an_evaluated_epoch(tiny, tmp_path):
    result = train(replace(tiny, epochs=100_000, evaluate_every=100_000, max_minutes=0.02, out=tmp_path / "run"))
    last = rows_of(RunFolder(result.run))[-1]
    assert result.steps < 400_000
    assert result.minutes >= 0.02
    assert last["val_top1"]
    assert float(last["learning_rate"]) < 0.05 * 8 / 512, "the schedule went with the clock"


def test_fine_tuning_starts_from_weights_and_can_freeze_the_backbone(trained, tiny, tmp_path):
    _, first = trained
    settings = replace(tiny, data="digits", weights=first.run, freeze_backbone=True, ema_decay=0.0, epochs=1, batch_size=479)
    result = train(replace(settings, out=tmp_path / "run"))
    before, after = (load_file(RunFolder(run).weights) for run in (first.run, result.run))
    assert {name for name in after if not torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}
    assert after["head.weight"].shape[0] == 10


def test_one_bad_setting_is_one_line(tiny, trained, tmp_path):
    _, result = trained
    for change, expected in [
        ({"out": result.run}, "not empty"),
        ({"data": ""}, "no data"),
        ({"batch_size": 64}, "expected from 1 to 36: change --batch-size"),
        ({"val_fraction": 0.0, "data": str(tmp_path)}, "found no pictures"),
        ({"resume": tmp_path, "out": None}, "resume|recipe.yaml"),
        ({"resume": result.run, "out": None, "lr": 0.123}, "lr: found 0.123, expected 0.05"),
    ]:
        with pytest.raises(UserError, match=expected) as error:
            train(replace(tiny, **{"out": tmp_path / "new", **change}))
        assert "\n" not in str(error.value)


def test_resuming_a_finished_run_changes_nothing_and_says_so(trained, capsys):
    _, result = trained
    before = load_file(RunFolder(result.run).weights)
    again = train(TrainSettings(resume=result.run))
    assert "nothing is left to train" in capsys.readouterr().err
    assert same(load_file(RunFolder(result.run).weights), before)
    assert again.figures == result.figures
    assert np.isfinite(again.images_per_second)


def test_a_resumed_run_keeps_its_folder_and_its_free_settings(trained):
    _, result = trained
    with pytest.raises(UserError, match="beside --resume"):
        train(TrainSettings(resume=result.run, out=result.run))
    kept = TrainSettings.from_plain(RunFolder(result.run).read_recipe())
    assert kept.num_workers == 0
    resumed = TrainSettings(resume=result.run)
    assert module._continued(resumed, ()).num_workers == 0
    assert module._continued(resumed, {"num_workers"}).num_workers is None
    assert resumed.epochs != kept.epochs
    with pytest.raises(UserError, match=f"epochs: found {resumed.epochs}, expected {kept.epochs} as in .*--weights {result.run} --out NEW"):
        module._continued(resumed, {"resume", "epochs"})
    assert module._continued(resumed, {"precision", "task"}).precision == kept.precision, "auto is no choice"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--epochs", str(TrainSettings().epochs)], "a resumed run keeps its settings, a new one can start from its weights"),
        (["--recipe", "quick"], "recipe: found quick beside --resume"),
        (["--task", "detect"], "task: found detect"),
    ],
)
def test_the_command_line_tells_a_resumed_run_what_was_typed(trained, capsys, arguments, expected):
    _, result = trained
    assert run_verb("train", ["--resume", str(result.run), *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_a_training_that_saw_few_pictures_says_so():
    made = TrainResult(Path("run"), "fvit_tiny", 10, 20, {"top1": 0.1, "loss": 2.3}, 3, 0.25, 0.1, 9.0, {})
    assert "3 steps (0.25 epochs)" in str(made) and "ended after 25% of its first epoch" in str(made)
    assert "first epoch" not in str(replace(made, epochs=1.0)) and "(1000 epochs)" in str(replace(made, epochs=1000.0))


def test_a_short_training_gets_a_short_warmup(tiny):
    assert replace(tiny, epochs=3, warmup_epochs=5.0).fitting_warmup_epochs == pytest.approx(0.6)
    assert replace(tiny, epochs=10, warmup_epochs=5.0).fitting_warmup_epochs == 5.0
