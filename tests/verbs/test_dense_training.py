"""Detection and segmentation from the command line: data on disk to run folder, figures, results files; resuming and processes."""

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file

from foveate.card import WholePicture
from foveate.cli import run_verb, training_defaults
from foveate.errors import UserError
from foveate.opening import open_model
from foveate.recipes import load_recipe
from foveate.run import RunFolder
from foveate.tasks import loop
from foveate.tasks.choose import refuse_foreign
from foveate.tasks.settings import TrainSettings
from foveate.verbs.evaluate import evaluate
from foveate.verbs.train import train
from foveate.weights.save import write_safetensors

HEADS = ("retinanet", "mask_rcnn", "semantic_fpn")
OPTIONS = ["--model", "resnet10t", "--img-size", "64", "--epochs", "1", "--batch-size", "2", "--num-workers", "0", "--json"]


@pytest.fixture(scope="module")
def data(coco_folder, mask_folder, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dense")
    return {
        "retinanet": coco_folder(folder / "boxes", outlines=False, pictures=(4, 3)),
        "mask_rcnn": coco_folder(folder / "outlines", outlines=True, pictures=(2, 3)),
        "semantic_fpn": mask_folder(folder / "masks", pictures=(4, 3)),
    }


@pytest.fixture(scope="module", params=HEADS)
def trained(request, data, tmp_path_factory):
    """Head, data, and the run that the command line left."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    with redirect_stdout(io.StringIO()) as printed:
        assert run_verb("train", [str(data[request.param]), "--out", str(out), *OPTIONS]) == 0
    return request.param, data[request.param], RunFolder(out), json.loads(printed.getvalue())


def test_the_command_line_trains_and_leaves_a_whole_run(trained):
    head, _, run, result = trained
    model, card = open_model(run.path)
    assert (card.task, card.head, card.model) == ("segment" if head == "semantic_fpn" else "detect", head, "resnet10t")
    assert card.class_names == (("ground", "red", "blue") if head == "semantic_fpn" else ("red", "blue"))
    assert card.category_ids == (() if head == "semantic_fpn" else (3, 7))
    assert isinstance(card.preprocessing, WholePicture) and card.preprocessing.short == 64
    assert card.results == result["figures"]
    files = [run.weights, run.card, run.recipe, run.metrics, run.checkpoint, run.curves, run.examples]
    assert all(file.stat().st_size > 0 for file in files + ([run.confusion] if head == "semantic_fpn" else []))
    assert result["pictures"] == 3
    images = torch.rand(1, 3, 70, 90)
    with torch.no_grad():
        said = model(images)
    assert said.shape == (1, 3, 70, 90) if head == "semantic_fpn" else set(said[0]) >= {"boxes", "scores", "labels"}


def test_evaluation_finds_the_figures_of_the_training(trained, capsys):
    head, data, run, result = trained
    assert run_verb("evaluate", [str(run.path), str(data), "--num-workers", "0", "--batch-size", "2", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["figures"] == result["figures"]
    assert measured["pictures"] == 3
    names = {"red", "blue"} if head != "semantic_fpn" else {"ground", "red", "blue"}
    assert {row["class"] for row in measured["classes"]} == names


def test_results_files_score_alike_in_pycocotools(trained, tmp_path, capsys):
    """With a model that is sure of everything, so that there are results after one epoch too."""
    head, data, run, _ = trained
    if head == "semantic_fpn":
        pytest.skip("detection only")
    model, card = open_model(run.path)
    state = model.state_dict()
    state["net.head.classification_head.cls_logits.bias" if head == "retinanet" else "net.roi_heads.box_predictor.cls_score.bias"] += 3
    write_safetensors(tmp_path / "sure.safetensors", state, card)
    arguments = [str(tmp_path / "sure.safetensors"), str(data), "--num-workers", "0", "--results", str(tmp_path / "found.json"), "--json"]
    assert run_verb("evaluate", arguments) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(data / "annotations" / "instances_val.json"))
        for kind, file in (("bbox", "found.json"), ("segm", "found-masks.json"))[: 1 + (head == "mask_rcnn")]:
            scored = COCOeval(truth, truth.loadRes(str(tmp_path / file)), kind)
            for step in (scored.evaluate, scored.accumulate, scored.summarize):
                step()
            name = "box" if kind == "bbox" else "mask"
            assert (scored.stats[0], scored.stats[8]) == (figures[f"{name}_ap"], figures[f"{name}_ar100"])


def test_options_of_another_task_are_refused_in_one_line(trained, capsys):
    head, data, run, _ = trained
    wrong = ["--flip"] if head != "semantic_fpn" else ["--results", "found.json"]
    assert run_verb("evaluate", [str(run.path), str(data), *wrong]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and wrong[0] in said and "leave it out" in said


def settings_for(data: Path, out: Path, **options) -> TrainSettings:
    """What the command line makes of `data` and options."""
    defaults = training_defaults([str(data)])
    return TrainSettings(**{**defaults, "data": str(data), "model": "resnet10t", "img_size": 64, "num_workers": 0, "out": out, **options})


@pytest.mark.parametrize(
    "head", [pytest.param("retinanet"), pytest.param("mask_rcnn", marks=pytest.mark.slow), pytest.param("semantic_fpn")]
)
def test_a_stopped_training_goes_on_to_the_bit(head, data, tmp_path, monkeypatch):
    options = {"epochs": 2, "batch_size": 2, "checkpoint_every_steps": 1, "evaluate_every": 2, "ema_decay": 0.9}
    whole = train(settings_for(data[head], tmp_path / "whole", **options))
    real, steps = loop.set_learning_rate, []

    def stopping(optimizer, rate):
        steps.append(rate)
        if len(steps) == whole.steps:  # in the last step
            raise KeyboardInterrupt
        real(optimizer, rate)

    monkeypatch.setattr(loop, "set_learning_rate", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(settings_for(data[head], tmp_path / "cut", **options))
    monkeypatch.setattr(loop, "set_learning_rate", real)
    again = train(TrainSettings(resume=tmp_path / "cut"))
    assert again.figures == whole.figures
    first, second = (load_file(RunFolder(run).weights) for run in (whole.run, again.run))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("head", [pytest.param("retinanet"), *(pytest.param(head, marks=pytest.mark.slow) for head in HEADS[1:])])
def test_two_processes_measure_exactly_as_one(head, data, tmp_path):
    run = train(settings_for(data[head], tmp_path / "run", epochs=1, batch_size=2)).run
    one, two = (evaluate(run, str(data[head]), devices=devices, batch_size=1, num_workers=0) for devices in (1, 2))
    assert (one.figures, one.classes, one.pictures) == (two.figures, two.classes, two.pictures)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_two_processes_train(head, data, tmp_path):
    accumulate = 1 if head == "mask_rcnn" else 2  # of two training pictures, of four
    result = train(settings_for(data[head], tmp_path / "run", epochs=1, batch_size=1, devices=2, accumulate=accumulate))
    assert result.pictures == 3 and all(0 <= value <= 1 for value in result.figures.values())


def test_a_detector_starts_from_a_classifier_and_from_a_detector(trained, data, tmp_path):
    """Weights of other classes leave the layers of classes fresh, and say so; of another head they are refused."""
    head, source, run, _ = trained
    if head != "retinanet":
        pytest.skip("shown with one head")
    tuned = train(settings_for(source, tmp_path / "tuned", weights=run.path, epochs=1, batch_size=2, freeze_backbone=True))
    before, after = load_file(run.weights), load_file(RunFolder(tuned.run).weights)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if ".network." in name}
    with pytest.raises(UserError, match="weights of a retinanet on resnet10t, expected mask_rcnn"):
        train(settings_for(data["mask_rcnn"], tmp_path / "other", weights=run.path, epochs=1, batch_size=2))


def test_what_does_not_go_together_is_one_line(data, tmp_path):
    for options, words in (
        ({"head": "mask_rcnn"}, "objects without outlines"),
        ({"head": "semantic_fpn"}, "expected retinanet or mask_rcnn"),
        ({"task": "segment"}, "looks like detection"),
        ({"model": "mixer_s16_224"}, "one size only"),
        ({"mixup": 0.5, "crop_size": 64}, "mixup 0.5, crop_size 64 for the task 'detect'"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            train(replace(settings_for(data["retinanet"], tmp_path / "run", batch_size=2), **options))
        assert "\n" not in str(caught.value)


def test_sharding_is_refused_for_detectors():
    with pytest.raises(UserError, match="expected ddp"):
        refuse_foreign(TrainSettings(strategy="fsdp"), "detect")


def test_a_recipe_of_the_task_stands_below_the_options_where_none_is_named(data, tmp_path):
    assert training_defaults([str(data["retinanet"])])["lr_reference_batch"] == 16
    assert training_defaults([str(data["semantic_fpn"])])["schedule"] == "poly"
    assert training_defaults(["digits"]) == {"task": "classify"}
    assert training_defaults(["--json", "--epochs", "3", "--lr=0.1", str(data["retinanet"])])["task"] == "detect", "options may stand first"
    published = training_defaults([str(data["retinanet"]), "--recipe", "coco_retinanet_1x"])
    assert published == load_recipe("coco_retinanet_1x"), "nothing of the recipe of the task comes into a published one"
    assert training_defaults([str(data["retinanet"]), "--resume", "RUN"]) == {}, "a resumed run has its own"
