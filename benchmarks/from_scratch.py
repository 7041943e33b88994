"""Train models from scratch on one data set under one recipe, one after another, and write what came out as one JSON file.

    python benchmarks/from_scratch.py DATA NAME [--models fvit_tiny resnet18] [--extra MODEL="OPTIONS"] -- OPTIONS OF foveate train

Method: every model gets the same pictures in the same order, the same augmentation, the same number of epochs and the same options; what
one model needs on top (`--extra`) stands in its command. Each is trained by `foveate train` in a process of its own, then measured by
`foveate evaluate` on the test split, or on the val split where there is no test. The file holds the commands, the hardware, the versions,
minutes, figures and learning curves; pictures per second are the median over the epochs. Detection and segmentation go the same way; for
equal minutes in place of equal epochs give `--max-minutes`. A model that the day's file holds, or whose run folder is finished, is not
trained again.
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from record import foveate, head, result_file, write

from foveate.counting import count_parameters
from foveate.opening import open_model
from foveate.run import RunFolder


def run_one(model: str, data: str, out: Path, options: list[str]) -> dict[str, Any]:
    """Train one model, unless its run folder is finished, and evaluate it; its commands and figures."""
    command = ["train", data, "--model", model, "--out", str(out), *options]
    run = RunFolder(out)
    if not run.weights.exists():
        foveate(*command)
    measured = foveate("evaluate", str(out), data)
    network, card = open_model(out)
    with run.metrics.open() as file:
        curve = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    shown = [Path(data).name if part == data else "RUN" if part == str(out) else part for part in command]
    record = {
        "model": model,
        "command": " ".join(["foveate", *shown]),
        "parameters": count_parameters(network),
        "minutes": round(curve[-1]["minutes"], 2),
        "steps": int(curve[-1]["step"]),
        "training_pictures_per_second": round(median(row["images_per_second"] for row in curve), 1),
        "held_out": {"split": measured["split"], "pictures": measured["pictures"], **measured["figures"]},
        "validation": card.results,
        "curve": curve,
    }
    return record if card.task == "classify" else {**record, "head": card.head, "classes": measured["classes"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("name", help="of the result: benchmarks/results/NAME_<hardware>_<date>.json")
    parser.add_argument("--models", nargs="+", default=["fvit_tiny", "t2t_vit_7", "resnet18"])
    parser.add_argument("--extra", nargs="*", default=[], metavar="MODEL=OPTIONS", help="further options for one model")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the run folders")
    border = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given, common = parser.parse_args(sys.argv[1:border]), sys.argv[border + 1 :]
    extra = dict(pair.split("=", 1) for pair in given.extra)
    record: dict[str, Any] = {**head("benchmarks/from_scratch.py"), "runs": []}
    earlier = result_file(given.name, record["date"])
    if earlier.exists():
        record = json.loads(earlier.read_text())
    done = {run["model"] for run in record["runs"]}
    for model in (name for name in given.models if name not in done):
        options = common + extra.get(model, "").split()
        record["runs"].append(run_one(model, given.data, given.runs / f"{given.name}-{model}", options))
        write(given.name, record)
        print(json.dumps({name: value for name, value in record["runs"][-1].items() if name != "curve"}, indent=1))


if __name__ == "__main__":
    main()
