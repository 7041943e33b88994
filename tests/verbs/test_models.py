"""The table of models for people and for programs."""

import io
import json

import pytest
from rich.console import Console

from foveate.errors import UserError
from foveate.factory import list_models
from foveate.published import PUBLISHED
from foveate.verbs.models import models


def printed(result, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(result)
    return console.file.getvalue()


def test_every_model_is_in_the_table_with_all_its_numbers():
    lines = printed(models(), 160).splitlines()
    for name in list_models():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        facts = PUBLISHED[name]
        top1 = " - " if facts.top1 is None else str(facts.top1)
        for cell in (f"{facts.parameters / 1e6:.3f}", f"{facts.macs / 1e9:.3f}", top1, facts.source):
            assert cell in line


@pytest.mark.parametrize("width", [60, 80])
def test_names_and_numbers_are_whole_on_narrow_screens(width):
    text = printed(models("t2t_vit_1*"), width)
    assert "t2t_vit_14_resnext" in text and "21.546" in text and max(map(len, text.splitlines())) <= width


def test_json_is_one_list_of_objects():
    (row,) = json.loads(models("fvit_tiny_dp").to_json())
    assert row["model"] == "fvit_tiny_dp" and row["parameters"] == 12_504_192
    assert row["top1"] == 79.1 and "2402.11303" in row["source"] and row["weights"] is True


def test_pattern_selects():
    assert models("*_dp").names == ("fvit_tiny_dp", "fvit_small_dp", "fvit_base_dp", "fvit_large_dp")


def test_a_pattern_without_a_match_is_an_error():
    with pytest.raises(UserError, match="'resnet18'"):
        models("resnet18")
