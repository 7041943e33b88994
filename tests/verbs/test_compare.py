"""`foveate compare`, with real trainings in processes of their own."""

import json
from pathlib import Path

import pytest
from PIL import Image

from foveate.cli import run_verb
from foveate.comparing.trials import Trial
from foveate.errors import UserError
from foveate.verbs import compare as compare_module
from foveate.verbs.compare import compare

RECIPE = """
img_size: 32
batch_size: 32
warmup_epochs: 0
mixup: 0
cutmix: 0
rand_augment: 0
num_workers: 0
val_fraction: 0.3
"""


@pytest.mark.long
def test_two_models_are_compared_and_the_same_command_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "quick.yaml").write_text(RECIPE)
    out = tmp_path / "out"
    options = ["--recipe", str(tmp_path / "quick.yaml"), "--epochs", "1", "--seeds", "1", "--out", str(out), "--json"]
    assert run_verb("compare", ["digits", "--models", "test_resnet,test_vit:no_such_option=1", *options]) == 2
    first = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in first["rows"]] == ["test_resnet"]
    assert len(first["problems"]) == 1 and "test_vit:no_such_option=1, seed 0: foveate train: model" in first["problems"][0]

    kept = out / "test_resnet" / "seed0"
    (kept / "evaluation.json").unlink()  # as if it had been killed before its end
    (kept / "training.json").unlink()
    changed = (kept / "recipe.yaml").stat().st_mtime_ns
    assert run_verb("compare", ["digits", "--models", "test_resnet, test_vit:depth=1", *options]) == 0
    second = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in second["rows"]} == {"test_resnet", "test_vit:depth=1"} and not second["problems"]
    assert (kept / "recipe.yaml").stat().st_mtime_ns == changed, "its training went on and was not begun anew"
    again = next(row for row in second["rows"] if row["model"] == "test_resnet")
    assert again["figures"] == first["rows"][0]["figures"] and again["steps"] == first["rows"][0]["steps"]

    best, other = second["rows"]
    assert best["mean"] >= other["mean"] and best["test"] is None
    assert best["told_apart"] is None and other["told_apart"] is (other["test"]["p"] < 0.05)  # one training each, one pair
    assert second["budget"] == "epochs"
    assert [[epoch for epoch, _ in points] for model in second["curves"].values() for points in model] == [[1], [1]]
    assert other["test"]["pictures"] == second["pictures"] == json.loads((kept / "evaluation.json").read_text())["pictures"]
    difference = round((best["mean"] - other["mean"]) * second["pictures"])
    assert other["test"]["wins"] - other["test"]["losses"] == difference
    assert all(row["images_per_second"] > 0 and row["peak_bytes"] > 0 and row["macs"] > 0 for row in second["rows"])
    assert second["recommendation"].startswith("Take ")
    assert json.loads((out / "comparison.json").read_text())["recommendation"] == second["recommendation"]
    page = (out / "comparison.md").read_text()
    assert "| test_vit:depth=1 |" in page and second["recommendation"] in page
    assert (out / "comparison.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": "resnet18,resnet18"}, "expected different names"),
        ({"models": "resnet18,"}, "expected different names"),
        ({"models": "no_such_model"}, "found 'no_such_model', expected names of"),
        ({"models": "resnet18:depth"}, "expected NAME or NAME:option=value"),
        ({"models": ["resnet18"], "seeds": 0}, "found 0 seeds"),
        ({"models": "resnet18", "epochs": 0}, "epochs: found 0"),
        ({"models": "resnet18", "val_fraction": 2}, "val_fraction: found 2"),
        ({"models": "resnet18", "recipe": "no_such_recipe"}, "no_such_recipe"),
        ({"models": "resnet18", "device": "no_such_device"}, "device: found 'no_such_device'"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_before_anything_is_made(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        compare("digits", out=tmp_path / "out", **options)
    with pytest.raises(UserError, match="no_such_data"):
        compare("no_such_data", models="resnet18", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_trainings_limited_by_time_always_share_the_machine_with_as_many_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(trials: list[Trial], *_: object) -> list[str]:
        trials[0].folder.mkdir(parents=True, exist_ok=True)
        (trials[0].folder / "resume.ckpt").touch()
        return ["nothing came of it"]

    monkeypatch.setattr(compare_module, "run_trials", begin)
    for parallel in (1, 2):
        with pytest.raises(UserError, match="nothing came of it"):
            compare("digits", models="resnet18", epochs=1, parallel=parallel, out=tmp_path / "by_epochs")
    with pytest.raises(UserError, match="nothing came of it"):
        compare("digits", models="resnet18", minutes=1, parallel=2, out=tmp_path / "by_minutes")
    with pytest.raises(UserError, match=r"found parallel 1, expected 2 as in plan\.json"):
        compare("digits", models="resnet18", minutes=1, out=tmp_path / "by_minutes")


def test_a_flat_folder_with_a_list_and_a_task_that_is_asked_for_are_opened_as_the_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_module, "run_trials", lambda *_: ["nothing came of it"])
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in "abcd":
        Image.new("L", (9, 6)).save(flat / f"{name}.png")
    (tmp_path / "labels.txt").write_text("a.png cat\nb.png dog\nc.png cat\nd.png dog\n")
    (tmp_path / "listed.yaml").write_text(f"list_file: {tmp_path / 'labels.txt'}\n")
    with pytest.raises(UserError, match="nothing came of it"):
        compare(str(flat), models="resnet18", recipe=str(tmp_path / "listed.yaml"), out=tmp_path / "out")
    with pytest.raises(UserError, match="found 4 pictures without class folders or a list"):
        compare(str(flat), models="resnet18", out=tmp_path / "out")
    (tmp_path / "words.yaml").write_text("lr: 1e-3\n")
    with pytest.raises(UserError, match=r"lr: found '1e-3', expected a number above 0, written such as 0\.001"):
        compare("digits", models="resnet18", recipe=str(tmp_path / "words.yaml"), out=tmp_path / "out")
