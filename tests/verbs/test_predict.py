"""Predictions are those of the model on the prepared picture, whatever surrounds it; nothing is lost on the way."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from foveate.card import ModelCard, Preprocessing
from foveate.cli import run_verb
from foveate.errors import UserError
from foveate.factory import create_model
from foveate.run import RunFolder
from foveate.verbs.picture_files import find_pictures
from foveate.verbs.predict import predict

SIDE = 16
NAMES = ("apple", "pear [ripe]", "plum", "größe")
OPTIONS = {"widths": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "stem_width": 8, "small_images": True}
BROKEN = b"\x89PNG\r\n\x1a\n and then nothing"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_model("fvit_tiny", num_classes=len(NAMES), **OPTIONS).eval()
    with torch.no_grad():
        model.head.weight.normal_(std=4)
    return model


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A run folder whose pictures need no resizing, so that the model's input is known to the last bit."""
    run = RunFolder(tmp_path_factory.mktemp("run"))
    preprocessing = Preprocessing(size=(SIDE, SIDE), resize=SIDE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    run.write_model(model, ModelCard("fvit_tiny", len(NAMES), 3, OPTIONS, NAMES, preprocessing))
    return run.path


@pytest.fixture
def pictures(tmp_path):
    """Seven pictures in a folder with a sub-folder, and what a model would be given for each, in the order of their names."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(0, 256, (7, SIDE, SIDE, 3), dtype=np.uint8)
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / ("sub" if index > 4 else "") / f"{index}.png")
    return folder, pixels


def expected(model, pixels, count):
    """Names and probabilities by a path of its own: float64 normalisation, one picture at a time, full sort."""
    results = []
    for picture in pixels:
        x = (picture.astype(np.float64) / 255 - (0.5, 0.4, 0.3)) / (0.2, 0.3, 0.4)
        with torch.no_grad():
            logits = model(torch.tensor(x, dtype=torch.float32).permute(2, 0, 1)[None])[0].double().numpy()
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        order = np.argsort(-shares)[:count]
        results.append((tuple(NAMES[place] for place in order), shares[order]))
    return results


@pytest.mark.parametrize(("batch_size", "top"), [(1, 1), (3, 2), (32, 4)])
def test_names_and_probabilities_are_the_models(run, model, pictures, batch_size, top):
    folder, pixels = pictures
    result = predict(run, [folder], batch_size=batch_size, top=top)
    assert [Path(one.file).name for one in result.predictions] == [f"{index}.png" for index in range(7)]
    assert len({one.names[0] for one in result.predictions}) > 1, "a model that always says the same would prove nothing"
    for one, (names, shares) in zip(result.predictions, expected(model, pixels, top), strict=True):
        assert one.names == names
        np.testing.assert_allclose(one.probabilities, shares, atol=1e-4)
    assert result.problems == ()


def test_all_classes_at_most_and_they_sum_to_one(run, pictures):
    result = predict(run, [pictures[0]], top=100)
    for one in result.predictions:
        assert sorted(one.names) == sorted(NAMES)
        assert sum(one.probabilities) == pytest.approx(1, abs=1e-5)
        assert list(one.probabilities) == sorted(one.probabilities, reverse=True)


def test_a_weight_file_serves_like_its_run_folder(run, pictures):
    assert predict(run / "model.safetensors", [pictures[0]]).predictions == predict(run, [pictures[0]]).predictions


def test_a_model_without_class_names_answers_with_numbers(run, model, pictures, tmp_path):
    nameless = RunFolder.create(tmp_path / "nameless")
    nameless.write_model(model, ModelCard("fvit_tiny", len(NAMES), 3, OPTIONS, (), Preprocessing((SIDE, SIDE), SIDE)))
    assert set(predict(nameless.path, [pictures[0]], top=4).predictions[0].names) == {"0", "1", "2", "3"}


class TestBrokenPictures:
    @pytest.fixture
    def result(self, run, pictures, tmp_path):
        folder, _ = pictures
        (folder / "2a.png").write_bytes(BROKEN)
        (folder / "notes.txt").write_text("no picture")
        return predict(run, [folder], batch_size=2, top=2, csv=tmp_path / "out.csv", sheet=tmp_path / "out.png")

    def test_the_others_are_done_and_the_broken_one_is_named(self, result, run, pictures):
        assert len(result.predictions) == 7
        (problem,) = result.problems
        assert "2a.png" in problem and "\n" not in problem
        good = [file for file in sorted(pictures[0].rglob("*.png")) if file.name != "2a.png"]
        for one, alone in zip(result.predictions, predict(run, good, top=2).predictions, strict=True):
            assert (one.file, one.names) == (alone.file, alone.names)
            np.testing.assert_allclose(one.probabilities, alone.probabilities, atol=1e-5)

    def test_what_was_left_out_is_said(self, result):
        assert any("left out 1 of 9" in note and ".txt" in note for note in result.notes)

    def test_csv_holds_every_picture_once(self, result, tmp_path):
        with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 8 and len({row["file"] for row in rows}) == 8
        for row, one in zip(rows[:7], result.predictions, strict=True):
            assert (row["file"], row["class_1"], row["class_2"], row["error"]) == (one.file, *one.names, "")
            assert float(row["probability_1"]) == pytest.approx(one.probabilities[0], abs=1e-6)
        assert rows[7]["class_1"] == "" and rows[7]["error"] == result.problems[0]

    def test_json_is_one_object_per_line_and_picture(self, result):
        rows = [json.loads(line) for line in result.to_json().splitlines()]
        assert len(rows) == 8
        for row, one in zip(rows[:7], result.predictions, strict=True):
            assert row["file"] == one.file and [entry["name"] for entry in row["predictions"]] == list(one.names)
        assert rows[7]["error"] == result.problems[0] and "predictions" not in rows[7]

    def test_the_table_shows_all_of_it(self, result):
        console = Console(file=io.StringIO(), width=200)
        console.print(result)
        text = console.file.getvalue()
        for one in result.predictions:
            assert one.file in text and one.names[0] in text and f"{one.probabilities[0]:.1%}" in text
        assert "7 pictures, 1 more could not be read" in text and result.problems[0] in text.replace("\n", " ").replace("  ", " ")

    def test_the_sheet_is_a_picture_of_the_readable_ones(self, result, tmp_path):
        with Image.open(tmp_path / "out.png") as sheet:
            assert sheet.format == "PNG" and sheet.width > 7 * 160

    def test_none_readable_is_a_result_too(self, run, tmp_path):
        (tmp_path / "only.jpg").write_bytes(b"no picture at all")
        result = predict(run, [tmp_path / "only.jpg"], csv=tmp_path / "out.csv", sheet=tmp_path / "out.png")
        assert result.predictions == () and len(result.problems) == 1
        assert (tmp_path / "out.csv").read_text().count("\n") == 2 and not (tmp_path / "out.png").exists()


def test_a_long_sheet_is_cut_and_says_so(run, tmp_path):
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "a.png")
    result = predict(run, [tmp_path / "a.png"] * 100, sheet=tmp_path / "sheet.png", batch_size=64)
    assert len(result.predictions) == 100 and any("first 96 of 100" in note for note in result.notes)


class TestMistakes:
    def test_are_found_before_the_work(self, run, pictures, tmp_path):
        folder = [pictures[0]]
        for arguments, complaint in (
            ({"pictures": [tmp_path / "none.png"]}, "none.png: found nothing there"),
            ({"pictures": [run]}, "found no picture in this folder"),
            ({"pictures": []}, "found no pictures"),
            ({"top": 0}, "top 0"),
            ({"batch_size": 0}, "batch size 0"),
            ({"csv": tmp_path / "no" / "out.csv"}, "found no folder"),
            ({"sheet": tmp_path / "no" / "out.png"}, "found no folder"),
            ({"sheet": pictures[0]}, "found a folder"),
            ({"threshold": 0.5, "flip": True, "tile": 64}, "found --threshold, --flip, --tile for a model that classifies"),
            ({"out": tmp_path, "results": tmp_path / "r.json"}, "found --out, --results for a model that classifies"),
            ({"device": "abacus"}, "'abacus'"),
            ({"source": tmp_path / "no_run"}, "no_run: found no weights"),
        ):
            with pytest.raises(UserError, match=complaint) as error:
                predict(**{"source": run, "pictures": folder, **arguments})
            assert "\n" not in str(error.value)

    def test_output_that_is_not_finite_is_refused(self, model, run, pictures, tmp_path):
        damaged = RunFolder.create(tmp_path / "damaged")
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        card = ModelCard.from_json(RunFolder(run).card.read_text())
        model_copy = create_model("fvit_tiny", num_classes=len(NAMES), **OPTIONS)
        model_copy.load_state_dict({**state, "head.bias": torch.full((len(NAMES),), float("nan"))})
        damaged.write_model(model_copy, card)
        with pytest.raises(UserError, match="not finite"):
            predict(damaged.path, [pictures[0]])


def test_folders_are_searched_in_order_and_files_taken_as_given(tmp_path):
    for name in ("b.PNG", "a.jpg", "sub/c.tiff", "sub/.hidden", "odd_name"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    files, notes = find_pictures([tmp_path / "odd_name", tmp_path])
    assert [file.name for file in files] == ["odd_name", "a.jpg", "b.PNG", "c.tiff"]
    assert len(notes) == 1 and "left out 2 of 5" in notes[0]


def test_the_command_can_be_piped_and_leaves_with_2(run, pictures, capsys, monkeypatch):
    folder, _ = pictures
    (folder / "bad.png").write_bytes(BROKEN)
    assert run_verb("predict", [str(run), str(folder), "--top", "1", "--batch-size", "3", "--json"]) == 2
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 8 and sum("error" in row for row in rows) == 1
    (folder / "bad.png").unlink()
    monkeypatch.setenv("COLUMNS", "300")
    assert run_verb("predict", [str(run), str(folder / "0.png"), str(folder / "1.png")]) == 0
    printed = capsys.readouterr().out
    assert str(folder / "0.png") in printed and str(folder / "1.png") in printed and "2 pictures" in printed
