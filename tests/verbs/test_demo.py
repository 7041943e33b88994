import json

import pytest

from foveate.errors import UserError
from foveate.recipes import load_recipe
from foveate.verbs import demo as module
from foveate.verbs.demo import RECIPES, demo


def test_trains_measures_and_tells_both_models(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load_recipe", lambda name: {**load_recipe(name), "epochs": 1, "warmup_epochs": 0.5})
    table = demo(out=tmp_path / "demo")
    assert [row.model for row in table.rows] == list(RECIPES)
    assert table.held_out == 359
    for row, recipe in zip(table.rows, RECIPES.values(), strict=True):
        run = tmp_path / "demo" / recipe
        assert row.run == str(run)
        assert {"model.safetensors", "model.json", "recipe.yaml", "metrics.csv", "curves.png", "confusion.png", "examples.png"} <= {
            file.name for file in run.iterdir()
        }
        assert (run / "filters.png").exists() == (recipe == "digits_fvit")
        assert json.loads((run / "model.json").read_text())["results"]["top1"] == pytest.approx(row.top1)
    assert json.loads((tmp_path / "demo" / "table.json").read_text()) == json.loads(table.to_json())


def test_a_file_in_its_way_is_one_line(tmp_path):
    (tmp_path / "demo").write_text("")
    with pytest.raises(UserError, match="found a file"):
        demo(out=tmp_path / "demo")


@pytest.mark.slow
def test_reaches_97_percent_with_both(tmp_path):
    assert all(row.top1 >= 0.97 for row in demo(out=tmp_path / "demo").rows)
