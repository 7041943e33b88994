"""`foveate bench` on real, small cases: figures that fit together, for people and programs, and clear refusals."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from command_line import Command
from foveate.errors import UserError
from foveate.speed.ceilings import Ceilings
from foveate.verbs import bench as module
from foveate.verbs.bench import BenchResult, Row, bench


def test_the_command_measures_models_and_writes_a_picture(tmp_path: Path, foveate: Command) -> None:
    picture = tmp_path / "speed.png"
    done = foveate("bench", "fvit_tiny", "resnet10t", "--batch", "2", "--size", "32", "--rounds", "2", "--json", "--picture", str(picture))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    first, second = result["rows"]
    assert (first["model"], second["model"], first["form"]) == ("fvit_tiny", "resnet10t", "eager")
    assert first["top1"] == 78.4 and second["top1"] is None
    for row in result["rows"]:
        assert row["slowest_round"] <= row["images_per_second"] <= row["fastest_round"]
        assert sorted(row["of_rounds"]) == [row["slowest_round"], row["fastest_round"]]
        assert row["images_per_second"] == pytest.approx(2 / (row["milliseconds"] / 1000))
        share = row["macs"] * row["images_per_second"] / result["ceilings"]["macs_per_second"]
        assert row["matrix_share"] == pytest.approx(share)
        moved = row["bytes_moved"] / (row["milliseconds"] / 1000)
        assert row["copy_share"] == pytest.approx(moved / result["ceilings"]["bytes_per_second"])
        assert row["bytes_moved"] > 4 * row["parameters"]
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 300


def test_ratios_are_medians_of_those_of_the_rounds() -> None:
    """A machine that is twice as fast in one round changes speeds, and no ratio."""

    def row(model: str, *of_rounds: float) -> Row:
        speeds = sorted(of_rounds)
        fixed: dict[str, Any] = {"form": "eager", "mode": "infer", "batch": 1, "size": 32, "dtype": "float32", "peak_bytes": 1}
        sizes = {"parameters": 1, "macs": 1, "bytes_moved": 1, "matrix_share": 0.5, "copy_share": 0.5, "milliseconds": 1.0}
        return Row(
            model, images_per_second=speeds[1], of_rounds=of_rounds, slowest_round=speeds[0], fastest_round=speeds[2], **fixed, **sizes
        )

    result = BenchResult((row("fast", 4.0, 10.0, 20.0), row("slow", 3.0, 7.5, 5.0)), Ceilings(1.0, 1.0), "cpu", 1, 3)
    console = Console(width=200, file=io.StringIO())
    console.print(result)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split()[6] for line in lines[1:3]] == ["1.00", "0.75"]


def test_the_table_says_what_was_measured_and_how_and_what_could_not_be(foveate: Command) -> None:
    options = ["--batch", "2", "--size", "32", "--rounds", "1", "--mode", "train", "--threads", "1"]
    done = foveate("bench", "fvit_tiny", "no_such_model", *options)
    assert done.returncode == 2
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:3]] == [["fvit_tiny", "eager"], ["fvit_tiny", "optimized"]]
    assert "not measured: model: found 'no_such_model'" in done.stdout
    assert "training steps (forward, cross-entropy, backward, AdamW) in float32 on cpu, 1 threads" in done.stdout
    assert "GFLOP/s matrix product" in done.stdout and "peak MiB" in done.stdout


def test_growing_measures_one_size_after_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "SIZES", (32, 64))
    result = bench(["fvit_tiny"], batch=1, rounds=1, threads=1, device="cpu", grow="size", picture=tmp_path / "growth.png")
    assert [row.size for row in result.rows] == [32, 64]
    assert result.rows[1].macs == pytest.approx(4 * result.rows[0].macs, rel=0.1)
    assert (tmp_path / "growth.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "found batch 0"),
        ({"rounds": 0}, "rounds 0"),
        ({"device": "cuda:99"}, "device: found 'cuda:99'"),
        ({"device": "abacus"}, "device: found 'abacus'"),
    ],
)
def test_senseless_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        bench(["fvit_tiny"], **options)
