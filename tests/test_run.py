import csv

import pytest
import timm
import torch

from foveate.card import ModelCard
from foveate.errors import UserError
from foveate.run import RunFolder
from foveate.weights.readers import read_weights


def test_new_run_needs_an_empty_place(tmp_path):
    assert RunFolder.create(tmp_path / "a" / "b").path.is_dir()
    RunFolder.create(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty, expected a new one; choose another --out, or continue"):
        RunFolder.create(tmp_path / "a" / "b")
    with pytest.raises(UserError, match="found a file"):
        RunFolder.create(tmp_path / "a" / "b" / "note.txt")
    assert (tmp_path / "a" / "b" / "note.txt").read_text() == "mine"


def test_only_a_run_with_a_checkpoint_is_opened(tmp_path):
    with pytest.raises(UserError, match=r"no recipe\.yaml and no resume\.ckpt"):
        RunFolder.open(tmp_path)
    run = RunFolder(tmp_path)
    run.recipe.touch()
    run.checkpoint.touch()
    assert RunFolder.open(tmp_path) == run


def test_recipe_reads_back_without_its_comment(tmp_path):
    run = RunFolder(tmp_path)
    settings = {"lr": 1e-3, "model": "fvit_tiny", "model_options": {"paths": 4}, "weights": None}
    run.write_recipe(settings, {"learning rate": "0.000125 = 0.001 per 512 pictures"})
    assert run.read_recipe() == settings
    assert run.recipe.read_text().startswith("# learning rate: 0.000125")
    run.recipe.write_text("- a list")
    with pytest.raises(UserError, match="expected a table"):
        run.read_recipe()
    run.recipe.write_text("{")
    with pytest.raises(UserError, match="unreadable"):
        run.read_recipe()


def test_metrics_have_empty_cells_where_nothing_was_measured(tmp_path):
    run = RunFolder(tmp_path)
    run.write_metrics(
        [{"epoch": 1.0, "step": 1234567, "train_loss": 1 / 3}, {"epoch": 2.0, "step": 2, "train_loss": 0.5, "val_top1": 0.25}]
    )
    with run.metrics.open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"epoch": "1", "step": "1234567", "train_loss": "0.333333", "val_top1": ""}
    assert rows[1]["val_top1"] == "0.25"


def test_model_and_card_read_back(tmp_path):
    run = RunFolder(tmp_path)
    model = timm.create_model("resnet10t", num_classes=2)
    card = ModelCard("resnet10t", 2, class_names=("cat", "dog"), results={"top1": 0.5})
    run.write_model(model, card)
    assert ModelCard.from_json(run.card.read_text()) == card
    assert read_weights(run.weights).card == card
    tensors = read_weights(run.weights).tensors
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())
