"""A comparison as people see it."""

import io
import json
import math

import pytest
from rich.console import Console

from foveate.comparing.paired import PairedTest
from foveate.comparing.result import Comparison
from foveate.comparing.summary import Row

ROWS = (
    Row("fvit_tiny:mixer=[gabor,gabor,pooling,attention]", (0.6, 0.62), 12_000_000, 3.0, 100, 10**9, 20.0, 2**28),
    Row("resnet18", (0.4, 0.42), 11_000_000, 2.0, 100, 10**9, 40.0, 2**28, PairedTest(500, 100, 20, 1e-9)),
)
RESULT = Comparison("pictures", "test", 500, "top1", 2, ROWS, "Take the first.", "epochs", aside=3)


def shown(width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(RESULT)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 110, 200])
def test_no_figure_is_cut_off_at_any_width(width: int) -> None:
    text = shown(width)
    assert "61.0%" in text and "41.0%" in text and "1.4" in text and "…" not in text
    assert "mixer=[gabor,ga" in text, "brackets are no markup"
    heading = next(line for line in text.splitlines() if line.startswith("model"))
    assert all((name in heading.split("  ")) == (width == 200) for name in ("trainings", "steps"))
    assert ("see comparison.md" in text) == (width < 200)
    assert "Take the first." in text and "3 finished trainings left aside" in " ".join(text.split())


def test_rows_say_whether_they_are_told_apart() -> None:
    record = json.loads(RESULT.to_json())
    assert [row["told_apart"] for row in record["rows"]] == [None, True]
    scatter = 2 / (2 + 200 + math.sqrt(200 * 202))  # Student's t with 2 degrees of freedom at 0.2 / sqrt(0.0002)
    assert [row["p"] for row in record["rows"]] == [None, pytest.approx(scatter)], "the larger: of trainings, beside 1e-9 of the pictures"
    assert "| resnet18 | 41.0% | 1.4 | 2 | 0.005 | yes |" in RESULT.markdown()
    assert "told apart: where p is below 0.05, 5% over all pairs of models" in RESULT.markdown()
