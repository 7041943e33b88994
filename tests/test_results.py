"""The tables in the pages are those of the result files."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from foveate.comparing.variants import listed, variant
from foveate.counting import count_macs
from foveate.factory import create_model
from foveate.recipes import load_recipe
from foveate.tasks.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "benchmarks" / "studies"
SPEC = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
report = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(report)


@pytest.mark.parametrize("name", report.PAGES)
def test_pages_show_the_result_files(name: str) -> None:
    page = (ROOT / name).read_text()
    assert "<!-- from " in page
    assert report.filled(page) == page


def test_a_changed_figure_changes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"model": "m", "parameters": 1234, "top1": 0.5, "seconds": 9.0, "images_per_second": 7.0}
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    page = "before\n<!-- from x.json -->\n\nold\n\n<!-- end -->\nafter\n"
    (tmp_path / "x.json").write_text(json.dumps({"method": "foveate demo", "rows": [row]}))
    assert "| m | 1,234 | 50.00% | 9 | 7 |" in report.filled(page)
    assert report.filled(page).startswith("before\n")
    assert report.filled(page).endswith("after\n")
    assert report.filled(report.filled(page)) == report.filled(page)


def test_a_page_may_show_the_rows_of_a_study_alone() -> None:
    file = next((ROOT / "benchmarks" / "results").glob("study_fvit_mixer_*.json"))
    record = json.loads(file.read_text())
    page = report.filled(f"# page\n<!-- rows from {file.name} -->\nstale\n<!-- end -->\nafter\n")
    assert f"| {record['rows'][0]['model']} | {record['rows'][0]['mean']:.1%} |" in page
    assert record["recommendation"] not in page and "images/" not in page and "stale" not in page
    assert page.startswith("# page\n") and page.endswith("<!-- end -->\nafter\n")


def test_a_mistyped_marker_is_told() -> None:
    with pytest.raises(ValueError, match="found 1 ends of marked places, expected 0"):
        report.filled("<!-- fom x.json -->\n<!-- end -->\n")


def study_models() -> Iterator[tuple[str, nn.Module, int]]:
    """Every row of every study, its model without numbers, and the side of its pictures."""
    for study in yaml.safe_load((STUDIES / "studies.yaml").read_text()).values():
        file = STUDIES / f"{study['recipe']}.yaml"
        recipe = TrainSettings.from_plain(load_recipe(file if file.exists() else study["recipe"]))
        form = {"small_images": True} if recipe.small_images else {}
        for row in study["models"]:
            model, options = variant(row)
            with torch.device("meta"):
                options = {**recipe.model_options, **form, **options}
                yield row, create_model(model, num_classes=10, img_size=recipe.img_size, **options), recipe.img_size


def test_every_row_of_every_study_can_be_built() -> None:
    assert all(listed(row) == [row] for row, _, _ in study_models())


@pytest.mark.slow
def test_every_row_of_every_study_takes_pictures_of_its_size() -> None:
    for row, model, side in study_models():
        assert count_macs(model, (side, side)) > 0, row


def test_every_result_says_how_it_came_about() -> None:
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert files
    for file in files:
        record = json.loads(file.read_text())
        assert {"method", "hardware", "versions", "date"} <= set(record), file.name
