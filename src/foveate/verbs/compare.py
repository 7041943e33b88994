"""`foveate compare`: which backbone for these pictures, at one budget, on this machine."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from foveate.card import Preprocessing
from foveate.comparing.summary import Row, headline, paired_with, recommend, summarise
from foveate.comparing.trials import Outcome, Plan, Trial, run_trials, variant
from foveate.errors import UserError
from foveate.metric_names import spoken
from foveate.opening import read_card
from foveate.plots.comparison import comparison
from foveate.recipes import load_recipe
from foveate.speed.device import resolved_device
from foveate.speed.rounds import Measured, measure
from foveate.speed.subject import Case
from foveate.tasks.settings import TrainSettings
from foveate.whole_files import write_text

SPEED_ROUNDS = 5
SPEED_BATCH = 16
OWN_SETTINGS = ("data", "model", "seed", "out", "resume")  # of each training


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
        files: written.
        problems: trainings and measurements that failed.
    """

    data: str
    split: str
    pictures: int
    figure: str
    seeds: int
    rows: tuple[Row, ...]
    recommendation: str
    files: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def table(self) -> list[list[str]]:
        """Heading and rows in words."""
        heading = ["model", spoken(self.figure), "±", "trainings", "p against best"]
        heading += ["M", "GMACs", "minutes", "steps", "pictures/s", "peak MiB"]
        return [heading, *(_cells(row) for row in self.rows)]

    def notes(self) -> list[str]:
        """What the columns mean."""
        return [
            f"{spoken(self.figure)} on {self.pictures:,} pictures of {self.data} ({self.split}): mean and standard deviation over trainings"
            "; p: exact sign test, picture by picture.",
            f"minutes and steps: of one training; pictures/s, peak MiB, GMACs: inference of the backbone, batch {SPEED_BATCH}, float32, "
            f"median of {SPEED_ROUNDS} rounds in turns on this machine.",
        ]

    def __rich__(self) -> RenderableType:
        heading, *rows = self.table()
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in heading:
            table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        problems = (f"failed: {problem}" for problem in self.problems)
        return Group(table, "", self.recommendation, "", *self.notes(), *(f"written: {file}" for file in self.files), *problems)

    def markdown(self) -> str:
        """The table and what belongs to it, for a page."""
        heading, *rows = self.table()
        rule = ["---", *["---:"] * (len(heading) - 1)]
        lines = [f"| {' | '.join(cells)} |" for cells in (heading, rule, *rows)]
        return "\n".join([*lines, "", self.recommendation, "", *self.notes()]) + "\n"

    def to_json(self) -> str:
        rows = [{**asdict(row), "mean": row.mean, "deviation": row.deviation} for row in self.rows]
        return json.dumps({**asdict(self), "rows": rows}, indent=2)


def _cells(row: Row) -> list[str]:
    return [
        row.model,
        f"{row.mean:.1%}",
        "-" if row.deviation is None else f"{100 * row.deviation:.1f}",
        str(len(row.figures)),
        "-" if row.test is None else f"{row.test.p:.2g}",
        f"{row.parameters / 1e6:.2f}",
        "-" if row.macs is None else f"{row.macs / 1e9:.3g}",
        f"{row.training_minutes:.1f}",
        f"{row.steps:,.0f}",
        "-" if row.images_per_second is None else f"{row.images_per_second:.1f}",
        "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f}",
    ]


def compare(
    data: str,
    *,
    models: str | list[str],
    out: Path = Path("comparison"),
    seeds: int = 3,
    epochs: int | None = None,
    minutes: float | None = None,
    recipe: str | None = None,
    img_size: int | None = None,
    batch_size: int | None = None,
    val_fraction: float | None = None,
    device: str = "auto",
    parallel: int = 1,
) -> Comparison:
    """Train every model on the same pictures with the same recipe, order of pictures and budget, and say which to take.

    Every training is an ordinary run folder, OUT/MODEL/seed0 ... The same command again goes on where the last one stopped; models and
    seeds may be added then. Where the data has a test split the models are compared on that, otherwise on what was held out.

    Args:
        data: folder of pictures, for any task, or "digits".
        models: names of this project or of timm, separated by commas; with options behind a name, as in fvit_tiny:mixer=pooling, variants.
        out: folder for the runs, comparison.json, comparison.md and comparison.png.
        seeds: trainings of each model.
        epochs: of each training; None: as the recipe says.
        minutes: of each training, evaluations included; the schedule is shortened to fit. None: no limit.
        recipe: settings for all, by name or file; None: the defaults of the task.
        img_size: as for train; None: the recipe's, or one for all from the data.
        batch_size: pictures per step; None: as the recipe says.
        val_fraction: share held out where the data has no split of its own; None: as the recipe says.
        device: on which the speed of inference is measured: auto (CUDA where there is one), cpu, cuda, mps ...
        parallel: trainings at a time; with several GPUs each has one, otherwise the processor's cores are shared out.

    Raises:
        UserError: for a plan that cannot be carried out, or where no training came to an end.
    """
    device = resolved_device(device)
    names = [name.strip() for name in (models.split(",") if isinstance(models, str) else models)]
    options = {"epochs": epochs, "max_minutes": minutes, "img_size": img_size, "batch_size": batch_size, "val_fraction": val_fraction}
    given = {name: value for name, value in options.items() if value is not None}
    settings = TrainSettings.from_plain({**(load_recipe(recipe) if recipe else {}), **given}).plain()
    shared = {name: value for name, value in settings.items() if name not in OWN_SETTINGS}
    words = {**({"recipe": recipe} if recipe else {}), **given}
    plan = Plan(data, _sound(names, seeds, parallel), seeds, words, shared)
    out.mkdir(parents=True, exist_ok=True)
    plan.keep(out / "plan.json")
    trials = plan.trials(out)
    problems = _trained(trials, plan, parallel)
    outcomes = [Outcome.read(trial) for trial in trials if trial.evaluation.is_file()]
    if not outcomes:
        raise UserError("\n".join(problems))
    figure = headline(outcomes)
    rows, unmeasured = _with_speed(summarise(outcomes, figure), outcomes, device)
    tests = paired_with(rows[0].model, outcomes)
    rows = [replace(row, test=tests.get(row.model)) for row in rows]
    measured = outcomes[0].evaluation
    result = Comparison(
        data, measured["split"], measured["pictures"], figure, seeds, tuple(rows), recommend(rows), problems=(*problems, *unmeasured)
    )
    return _written(result, outcomes, out)


def _sound(models: Sequence[str], seeds: int, parallel: int) -> tuple[str, ...]:
    """The models; `UserError` for numbers and names that make no comparison."""
    if min(seeds, parallel) < 1:
        raise UserError(f"compare: found {seeds} seeds, {parallel} in parallel, expected numbers from 1 up")
    if not all(models) or len(set(models)) < len(models):
        raise UserError(f"models: found {', '.join(models)!r}, expected different names, separated by commas")
    for model in models:
        variant(model)
    return tuple(models)


def _trained(trials: Sequence[Trial], plan: Plan, parallel: int) -> list[str]:
    """Run what is not done yet, telling people how far it is; why trials failed."""
    console = Console(stderr=True)
    open_ones = [trial for trial in trials if not trial.evaluation.is_file()]
    done = len(trials) - len(open_ones)
    if done:
        console.print(f"{done} of {len(trials)} trainings are done already", highlight=False)
    columns = TextColumn("trainings"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("trainings", total=len(open_ones))

        def finished(trial: Trial, problem: str) -> None:
            progress.advance(task)
            console.print(problem or _news(trial), highlight=False, soft_wrap=True)

        return run_trials(open_ones, plan, parallel, finished)


def _news(trial: Trial) -> str:
    outcome = Outcome.read(trial)
    figure = headline([outcome])
    minutes, share = outcome.training["minutes"], outcome.evaluation["figures"][figure]
    return f"{trial.model}, seed {trial.seed}: {spoken(figure)} {share:.1%} after {minutes:.1f} min ({trial.folder})"


def _with_speed(rows: Sequence[Row], outcomes: Sequence[Outcome], device: str) -> tuple[list[Row], list[str]]:
    """The rows with what was measured of each backbone's inference, in turns; and what could not be measured."""
    cases = [_case(row.model, outcomes, device) for row in rows]
    with Console(stderr=True).status("measuring speed") as status:
        measured, problems, _ = measure(cases, SPEED_ROUNDS, status.update)
    found = (next((one for one in measured if one.case == case), None) for case in cases)
    return [_timed(row, one) for row, one in zip(rows, found, strict=True)], problems


def _timed(row: Row, found: Measured | None) -> Row:
    if found is None:
        return row
    return replace(row, macs=found.facts.macs, images_per_second=found.images_per_second, peak_bytes=found.peak_bytes)


def _case(model: str, outcomes: Sequence[Outcome], device: str) -> Case:
    """The backbone in the form and at the size in which it was trained."""
    card = read_card(next(outcome.trial.folder for outcome in outcomes if outcome.trial.model == model))
    recipe = card.preprocessing
    size = recipe.size[0] if isinstance(recipe, Preprocessing) else recipe.short
    return Case(card.model, batch=SPEED_BATCH, size=size, device=device, options=(("in_chans", card.in_chans), *card.options.items()))


def _written(result: Comparison, outcomes: Sequence[Outcome], out: Path) -> Comparison:
    """The result with its files beside the runs: JSON, a page, a picture."""
    column = f"val_{result.figure}"
    curves: dict[str, list[list[tuple[float, float]]]] = {row.model: [] for row in result.rows}
    for outcome in outcomes:
        curves[outcome.trial.model].append([(row["minutes"], row[column]) for row in outcome.curve if column in row])
    rows = [{**asdict(row), "mean": row.mean, "deviation": row.deviation} for row in result.rows]
    picture = comparison(rows, curves, out / "comparison.png", figure=result.figure, title=Path(result.data).name)
    result = replace(result, files=tuple(str(file) for file in (out / "comparison.json", out / "comparison.md", picture)))
    write_text(out / "comparison.json", result.to_json() + "\n")
    write_text(out / "comparison.md", result.markdown())
    return result
