"""The plan of a comparison, and trials that fail, wait and share the machine."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from foveate.comparing.running import run_trials, shared_out
from foveate.comparing.trials import Place, Plan, Trial
from foveate.comparing.variants import listed, variant
from foveate.errors import UserError

SETTINGS = {"epochs": 3, "lr": 0.1}


def test_every_model_is_seen_before_any_is_seen_twice() -> None:
    made = Plan("data", ("a", "b"), 2, {}, SETTINGS).trials(Path("out"))
    assert [(trial.model, trial.seed) for trial in made] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert made[3].folder == Path("out/b/seed1") and made[3].log == Path("out/b/seed1.log")


def test_a_plan_may_grow_but_not_change(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    Plan("data", ("a",), 1, {}, SETTINGS).keep(file)
    Plan("mistyped", ("a",), 1, {}, SETTINGS).keep(file)
    Plan("data", ("a", "b"), 3, {}, SETTINGS).keep(file)
    (tmp_path / "a" / "seed0").mkdir(parents=True)
    (tmp_path / "a" / "seed0" / "resume.ckpt").touch()
    assert json.loads(file.read_text())["seeds"] == 3
    with pytest.raises(UserError, match=r"found epochs 4, expected 3 as in plan\.json"):
        Plan("data", ("a",), 1, {}, {**SETTINGS, "epochs": 4}).keep(file)
    with pytest.raises(UserError, match="found data elsewhere, expected data"):
        Plan("elsewhere", ("a",), 1, {}, SETTINGS).keep(file)
    assert json.loads(file.read_text())["models"] == ["a", "b"], "what was refused changes nothing"


def test_trials_fail_alone_and_are_never_more_at_a_time_than_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    running, most, lock, both = 0, 0, threading.Lock(), threading.Barrier(2, timeout=20)

    def run(trial: Trial, plan: Plan, place: Place) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()  # two at a time, or never
        assert place == Place({"OMP_NUM_THREADS": "3"}, 3)
        with lock:
            running -= 1
        if trial.seed == 1:
            raise UserError(f"{trial.model} broke")

    monkeypatch.setattr(Trial, "run", run)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6), raising=False)
    plan = Plan("data", ("a", "b"), 3, {}, SETTINGS)
    told: list[str] = []
    made = plan.trials(tmp_path)
    problems = run_trials(made, plan, 2, lambda trial, problem: told.append(f"{trial.model}{trial.seed}{problem}"))
    assert sorted(problems) == ["a broke", "b broke"]
    assert sorted(told) == ["a0", "a1a broke", "a2", "b0", "b1b broke", "b2"]
    assert most == 2
    done = made[0].evaluation_file
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    told.clear()
    monkeypatch.setattr(Trial, "run", lambda *_: None)
    run_trials(made, plan, 1, lambda trial, problem: told.append(trial.model))
    assert len(told) == 5


def test_several_gpus_get_a_training_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in shared_out(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in shared_out(3)] == ["5", "7", "5"]
    assert shared_out(1) == [Place()]
    assert all("CUDA_VISIBLE_DEVICES" not in place.environment for place in shared_out(2, accelerator="cpu"))


def test_a_killed_command_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = subprocess.CompletedProcess([], -9, stdout="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(UserError, match="a, seed 0: killed by signal 9, perhaps for want of memory"):
        Trial("a", 0, tmp_path / "a" / "seed0").run(Plan("digits", ("a",), 1, {}, {}), Place())


def test_a_command_that_fails_leaves_its_last_words(tmp_path: Path) -> None:
    trial = Trial("no_such_model", 0, tmp_path / "no_such_model" / "seed0")
    with pytest.raises(UserError, match=r"no_such_model, seed 0: foveate train: .*seed0\.log"):
        trial.run(Plan("digits", ("no_such_model",), 1, {"epochs": 1}, {}), Place())
    assert not trial.evaluation_file.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="files are not claimed there")
def test_a_training_that_outlived_its_comparison_is_left_alone(tmp_path: Path) -> None:
    trial = Trial("a", 0, tmp_path / "a" / "seed0")
    trial.folder.parent.mkdir()
    with trial.log.open("a") as log:
        code = "import sys; print('begun', flush=True); sys.stdin.read()"
        trial._claim(log)
        orphan = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        orphan.stdout.readline()
    with pytest.raises(UserError, match="a, seed 0: found another process"):
        trial.run(Plan("digits", ("a",), 1, {}, {}), Place())
    orphan.communicate()
    with pytest.raises(UserError, match="foveate train: model: found 'a'"):
        trial.run(Plan("digits", ("a",), 1, {}, {}), Place())


def test_evaluations_share_what_the_recipe_says_of_files_and_machine() -> None:
    settings = {"epochs": 3, "list_file": "labels.txt", "accelerator": "cpu", "precision": "auto", "num_workers": 0}
    assert Plan("data", ("a",), 1, {}, settings).judging(Place()) == {"list_file": "labels.txt", "accelerator": "cpu", "num_workers": 0}
    assert Plan("data", ("a",), 1, {}, SETTINGS).judging(Place()) == {}


def test_readers_are_shared_out_where_the_recipe_leaves_them_open() -> None:
    place = Place(num_workers=2)
    assert Plan("data", ("a",), 1, {}, SETTINGS).judging(place) == {"num_workers": 2}
    assert Plan("data", ("a",), 1, {}, {**SETTINGS, "num_workers": 5}).judging(place) == {"num_workers": 5}
    assert Plan("digits", ("a",), 1, {}, SETTINGS).judging(place) == {}, "pictures in memory need none"
    words = Plan("data", ("a",), 1, {}, SETTINGS).trials(Path("absent"))[0]._arguments(Plan("data", ("a",), 1, {}, SETTINGS), place)
    assert words[words.index("--num-workers") + 1] == "2"


def test_an_error_of_the_system_fails_one_trial_and_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(trial: Trial, plan: Plan, place: Place) -> None:
        if trial.model == "a":
            raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(Trial, "run", run)
    plan = Plan("data", ("a", "b"), 1, {}, SETTINGS)
    told: list[str] = []
    problems = run_trials(plan.trials(tmp_path), plan, 1, lambda trial, problem: told.append(trial.model))
    assert problems == ["a, seed 0: Cannot allocate memory"] and told == ["a", "b"]


def test_commas_stand_between_models_and_within_lists() -> None:
    assert listed("resnet18, fvit_tiny:depths=[1,1,2,1]:paths=2 ,t2t_vit_7") == [
        "resnet18",
        "fvit_tiny:depths=[1,1,2,1]:paths=2",
        "t2t_vit_7",
    ]
    assert variant(listed("fvit_tiny:depths=[1,1,2,1]")[0]) == ("fvit_tiny", {"depths": [1, 1, 2, 1]})
    assert listed("resnet18,") == ["resnet18", ""]


def test_variants_are_names_with_options() -> None:
    assert variant("resnet18") == ("resnet18", {})
    assert variant("fvit_tiny:mixer=pooling:paths=2:learn_gabor=false") == (
        "fvit_tiny",
        {"mixer": "pooling", "paths": 2, "learn_gabor": False},
    )
    with pytest.raises(UserError, match="expected values as in YAML"):
        variant("fvit_tiny:widths=[16,32")
    for wrong in ("fvit_tiny:mixer", ":mixer=pooling", "fvit_tiny:=3", "fvit_tiny:mixer="):
        with pytest.raises(UserError, match="expected NAME or NAME:option=value"):
            variant(wrong)


def test_a_variant_keeps_the_recipes_options_and_a_cut_off_training_begins_anew(tmp_path: Path) -> None:
    plan = Plan("data", ("a:b=1",), 1, {"epochs": 2}, {"model_options": {"b": 5, "c": 6}})
    (trial,) = plan.trials(tmp_path)
    assert trial.folder == tmp_path / "a-b=1" / "seed0"
    trial.folder.mkdir(parents=True)
    (trial.folder / "metrics.csv").touch()
    words = trial._arguments(plan, Place())
    assert words[:2] == ["train", "data"] and not trial.folder.exists()
    assert words[words.index("--model") + 1] == "a" and words[words.index("--model-options") + 1] == '{"b": 1, "c": 6}'
    trial.folder.mkdir()
    (trial.folder / "resume.ckpt").touch()
    assert trial._arguments(plan, Place()) == ["train", "--resume", str(trial.folder)]
    assert (trial.folder / "resume.ckpt").exists()
