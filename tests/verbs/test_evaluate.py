import csv
import io
import json
import math

import pytest
import torch
from rich.console import Console

from foveate.card import ModelCard, Preprocessing
from foveate.errors import UserError
from foveate.factory import create_model
from foveate.verbs.evaluate import evaluate
from foveate.weights.save import write_safetensors

NAMES = ("one", "two", "zero")
OPTIONS = {"widths": (8, 8, 8, 16), "depths": (1, 1, 1, 1), "stem_width": 8}


def write_model(path, names):
    """An untrained model with a large head, so that its answers differ from picture to picture."""
    torch.manual_seed(0)
    model = create_model("fvit_tiny", num_classes=len(NAMES), **OPTIONS)
    torch.nn.init.normal_(model.head.weight, std=3)
    model.train()
    model(torch.randn(16, 3, 16, 16))
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in OPTIONS.items()}
    card = ModelCard("fvit_tiny", len(NAMES), options=options, class_names=names, preprocessing=Preprocessing((16, 16), 16))
    write_safetensors(path, model.state_dict(), card)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("weights") / "model.safetensors", NAMES)


@pytest.fixture(scope="module")
def alone(weights, digit_folder):
    return evaluate(weights, str(digit_folder), batch_size=4, accelerator="cpu", num_workers=0)


@pytest.mark.parametrize("processes", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_17_pictures_on_several_processes_give_the_same_bits_and_say_17(processes, weights, digit_folder, alone):
    together = evaluate(weights, str(digit_folder), batch_size=4, devices=processes, accelerator="cpu", num_workers=0)
    assert together.processes == processes
    assert together.pictures == alone.pictures == 17
    assert "17 pictures seen" in str(together)
    assert together.figures == alone.figures
    assert together.confusion == alone.confusion


def test_a_line_per_picture_is_written(weights, digit_folder, alone, tmp_path):
    file = tmp_path / "guesses.csv"
    evaluate(weights, str(digit_folder), batch_size=4, accelerator="cpu", num_workers=0, results=file)
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len({row["picture"] for row in rows}) == 17
    assert all((digit_folder / "test" / row["picture"]).is_file() or (digit_folder / row["picture"]).is_file() for row in rows)
    counts = [[sum(row["truth"] == truth and row["guess"] == guess for row in rows) for guess in NAMES] for truth in NAMES]
    assert counts == [list(row) for row in alone.confusion]
    assert sum(float(row["loss"]) for row in rows) / 17 == pytest.approx(alone.figures["loss"], rel=1e-4)
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)


def test_batch_size_does_not_change_the_confusion(weights, digit_folder, alone):
    other = evaluate(weights, str(digit_folder), batch_size=17, accelerator="cpu", num_workers=0)
    assert other.confusion == alone.confusion
    assert other.figures["loss"] == pytest.approx(alone.figures["loss"], rel=1e-5)


def test_figures_and_tables_agree_with_the_confusion(alone):
    matrix = torch.tensor(alone.confusion)
    assert matrix.sum() == 17
    assert alone.figures["top1"] == matrix.trace().item() / 17
    assert "top5" not in alone.figures, "three classes"
    rows = alone.classes()
    assert [row["class"] for row in rows] == list(NAMES)
    assert sum(row["recall"] * row["count"] for row in rows) == pytest.approx(17 * alone.figures["top1"])
    assert sum((row["precision"] or 0) * row["predicted"] for row in rows) == pytest.approx(17 * alone.figures["top1"])


def test_table_names_every_class_and_json_is_whole(alone):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(alone)
    text = console.export_text()
    assert all(name in text for name in NAMES)
    assert "17 pictures seen" in text
    values = json.loads(alone.to_json())
    assert values["classes"] == alone.classes()
    assert math.isfinite(values["pictures_per_second"])


def test_classes_are_matched_by_name_not_by_place(weights, digit_folder, alone, tmp_path):
    """A folder with one class only has another numbering; its row of the confusion stays the same."""
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "zero").symlink_to(digit_folder / "val" / "zero", target_is_directory=True)
    zeros = evaluate(weights, str(tmp_path), batch_size=4, accelerator="cpu", num_workers=0)
    assert zeros.confusion == ((0, 0, 0), (0, 0, 0), alone.confusion[2])
    assert zeros.classes()[0]["recall"] is None


def test_unknown_classes_are_named(weights, digit_folder, tmp_path):
    for name in ("one", "seven"):
        (tmp_path / "val").mkdir(exist_ok=True)
        (tmp_path / "val" / name).symlink_to(digit_folder / "val" / "one", target_is_directory=True)
    with pytest.raises(UserError, match=r"seven(.|\n)*lacks two, zero"):
        evaluate(weights, str(tmp_path), accelerator="cpu", num_workers=0)


def test_model_without_names_needs_as_many_classes(digit_folder, tmp_path, alone):
    nameless = write_model(tmp_path / "nameless.safetensors", ())
    assert evaluate(nameless, str(digit_folder), batch_size=4, accelerator="cpu", num_workers=0).figures == alone.figures
    with pytest.raises(UserError, match="3 classes without names, expected 10"):
        evaluate(nameless, "digits", accelerator="cpu", num_workers=0)


def test_split_and_source_must_be_there(weights, digit_folder, tmp_path):
    with pytest.raises(UserError, match="expected test"):
        evaluate(weights, str(digit_folder), split="test", accelerator="cpu")
    with pytest.raises(UserError, match="no weights"):
        evaluate(tmp_path, str(digit_folder), accelerator="cpu", num_workers=0)
    train = evaluate(weights, str(digit_folder), split="train", accelerator="cpu", num_workers=0)
    assert (train.split, train.pictures) == ("train", 36)
