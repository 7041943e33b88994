"""`foveate demo`: two small models trained on the embedded digits, side by side in one table."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from foveate.errors import UserError
from foveate.recipes import load_recipe
from foveate.tasks.settings import TrainSettings
from foveate.verbs.evaluate import evaluate
from foveate.verbs.train import train
from foveate.whole_files import write_text

RECIPES = {"small FViT": "digits_fvit", "small T2T-ViT": "digits_t2t_vit"}


@dataclass(frozen=True)
class DemoRow:
    """One model of the demo.

    Args:
        model: what it is.
        parameters: their number.
        top1: accuracy on the held-out digits, 0 to 1.
        seconds: of training and of everything that belongs to it.
        images_per_second: training pictures per second, over the whole training.
        run: the run folder.
    """

    model: str
    parameters: int
    top1: float
    seconds: float
    images_per_second: float
    run: str


@dataclass(frozen=True)
class DemoTable:
    """The rows of the demo and how many digits were held out."""

    rows: tuple[DemoRow, ...]
    held_out: int

    def __rich__(self) -> Table:
        title = f"1,797 handwritten digits, {self.held_out} of them held out"
        table = Table(title=title, title_justify="left", box=None, header_style="bold")
        table.add_column("model")
        for heading in ("parameters", "top-1", "seconds", "pictures/s"):
            table.add_column(heading, justify="right")
        table.add_column("run folder")
        for row in self.rows:
            figures = f"{row.parameters:,}", f"{row.top1:.2%}", f"{row.seconds:.0f}", f"{row.images_per_second:.0f}"
            table.add_row(row.model, *figures, row.run)
        return table

    def to_json(self) -> str:
        return json.dumps([asdict(row) for row in self.rows], indent=2)


def demo(*, out: Path = Path("demo")) -> DemoTable:
    """Train a small FViT and a small T2T-ViT on the embedded digits, evaluate both on the held-out ones, and compare them.

    Args:
        out: folder that gets a run folder for each model, with a number added where it exists, and the table as table.json.

    Raises:
        UserError: where `out` is a file.
    """
    if out.is_file():
        raise UserError(f"{out}: found a file, expected a folder for the runs: name another with --out")
    rows, held_out = [], 0
    for model, recipe in RECIPES.items():
        began = time.perf_counter()
        settings = TrainSettings.from_plain({**load_recipe(recipe), "data": "digits", "out": _free_folder(out / recipe)})
        result = train(settings)
        seconds = time.perf_counter() - began
        evaluation = evaluate(result.run, "digits")
        held_out = evaluation.pictures
        speed = result.steps * settings.batch_size / (60 * result.minutes)
        rows.append(DemoRow(model, result.parameters, evaluation.figures["top1"], seconds, speed, str(result.run)))
    table = DemoTable(tuple(rows), held_out)
    write_text(out / "table.json", table.to_json() + "\n")
    return table


def _free_folder(wanted: Path) -> Path:
    """`wanted`, or with the first number behind it that is not taken: an earlier demo is never written over."""
    folder, number = wanted, 2
    while folder.exists():
        folder, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return folder
