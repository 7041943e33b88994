"""What came out of a comparison: a table, a page, JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from foveate.comparing.summary import CHANCE, Row, alike, asked_for, chance
from foveate.metric_names import spoken

Budget = Literal["epochs", "minutes"]

SPEED_ROUNDS = 5
SPEED_BATCH = 16
LESS = ("trainings", "p against best", "M", "GMACs", "steps", "peak MiB")  # columns that a narrow terminal does without


@dataclass(frozen=True)
class Comparison:
    """What came out of all trainings, the best model first.

    Args:
        data: what was trained and measured on.
        split, pictures: the part of it that the figures were measured on, and the number of its pictures.
        figure: what models are compared by: `top1`, `mask_ap`, `box_ap` or `miou`.
        seeds: trainings of each model that were asked for.
        rows: of the models that finished a training.
        recommendation: the sentence that follows.
        budget: of each training, "epochs" or "minutes".
        curves: by model, for each of its trainings, points of the budget spent and the figure on what was held out from training.
        files: written.
        problems: trainings and measurements that failed.
        aside: finished trainings that were not judged, since some model has not finished their seed.
    """

    data: str
    split: str
    pictures: int
    figure: str
    seeds: int
    rows: tuple[Row, ...]
    recommendation: str
    budget: Budget
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    aside: int = 0

    def table(self) -> list[list[str]]:
        """Heading and rows in words."""
        heading = ["model", spoken(self.figure), "±", "trainings", "p against best", "told apart"]
        heading += ["M", "GMACs", "minutes", "steps", "pictures/s", "peak MiB"]
        return [heading, *(_cells(row, self.chance(row), self.told_apart(row)) for row in self.rows)]

    def chance(self, row: Row) -> float | None:
        """How often chance alone would set `row` as far from the best; None for that one itself, and without a test."""
        return None if row is self.rows[0] else chance(self.rows[0], row)

    def told_apart(self, row: Row) -> bool | None:
        """Whether the figures tell `row` from the best, which stands first; None for that one itself. See `alike`."""
        return None if row is self.rows[0] else not alike(self.rows[0], row, len(self.rows))

    def notes(self) -> list[str]:
        """What the columns mean."""
        scatter = "Welch's test over trainings, where there are several"
        tests = f"the exact sign test over pictures or, where larger, {scatter}" if any(row.test for row in self.rows) else scatter
        return [
            f"{spoken(self.figure)} on {self.pictures:,} pictures of {self.data} ({self.split}): mean and standard deviation over trainings"
            f"; p: how often chance alone would set a model as far from the best, by {tests}; told apart: where p is below "
            f"{asked_for(len(self.rows)):.2g}, {CHANCE:.0%} over all pairs of models.",
            f"M: million parameters; minutes and steps: of one training; pictures/s, peak MiB, GMACs: inference of the backbone, batch "
            f"{SPEED_BATCH} (1 to detect and segment), float32, median of {SPEED_ROUNDS} rounds in turns on this machine.",
            *([f"{self.aside} finished trainings left aside: not every model has finished their seeds"] if self.aside else []),
            *(f"failed: {problem}" for problem in self.problems),
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, without the columns that matter least where the terminal is too narrow for all, and what belongs to it."""
        rows = self.table()
        table = _drawn(rows)
        if Measurement.get(console, options.update(width=10_000), table).maximum > options.max_width:
            table = _drawn([[cell for name, cell in zip(rows[0], row, strict=True) if name not in LESS] for row in rows])
            yield f"the terminal is too narrow for {', '.join(LESS)}: see comparison.md"
        yield table
        for line in ("", self.recommendation, "", *self.notes(), *(f"written: {file}" for file in self.files)):
            yield Text(line)

    def markdown(self) -> str:
        """The table and what belongs to it, for a page."""
        heading, *rows = self.table()
        rule = ["---", *["---:"] * (len(heading) - 1)]
        lines = [f"| {' | '.join(cells)} |" for cells in (heading, rule, *rows)]
        return "\n".join([*lines, "", self.recommendation, "", *self.notes()]) + "\n"

    def to_json(self) -> str:
        rows = [{**row.plain(), "p": self.chance(row), "told_apart": self.told_apart(row)} for row in self.rows]
        return json.dumps({**asdict(self), "rows": rows}, indent=2)


def _drawn(rows: Sequence[Sequence[str]]) -> Table:
    heading, *body = rows
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(heading[0], overflow="fold")
    for name in heading[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in body:
        table.add_row(Text(row[0]), *row[1:])
    return table


def _cells(row: Row, p: float | None, told_apart: bool | None) -> list[str]:
    return [
        row.model,
        f"{row.mean:.1%}",
        "-" if row.deviation is None else f"{100 * row.deviation:.1f}",
        str(len(row.figures)),
        "-" if p is None else f"{p:.2g}",
        "-" if told_apart is None else "yes" if told_apart else "no",
        f"{row.parameters / 1e6:.2f}",
        "-" if row.macs is None else f"{row.macs / 1e9:.3g}",
        f"{row.training_minutes:.1f}",
        f"{row.steps:,.0f}",
        "-" if row.images_per_second is None else f"{row.images_per_second:.1f}",
        "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f}",
    ]
