"""`foveate compare`: which backbone for these pictures, at one budget, on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from foveate.card import Preprocessing
from foveate.comparing.result import SPEED_BATCH, SPEED_ROUNDS, Budget, Comparison
from foveate.comparing.running import run_trials
from foveate.comparing.summary import Row, headline, on_shared_seeds, paired_with, recommend, same_pictures, summarise
from foveate.comparing.trials import Outcome, Plan, Trial
from foveate.comparing.variants import listed, variant
from foveate.data.opening import likely_task, open_data
from foveate.device import choose_device
from foveate.errors import UserError
from foveate.metric_names import spoken
from foveate.opening import read_card
from foveate.plots.comparison import comparison
from foveate.recipes import load_recipe, with_task_defaults
from foveate.speed.rounds import Measured, measure
from foveate.speed.subject import Case
from foveate.tasks.settings import TrainSettings
from foveate.whole_files import write_text

OWN_SETTINGS = ("data", "model", "seed", "out", "resume")  # of each training


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
        device: on which the speed of inference is measured: cpu, cuda, mps ...; auto is an accelerator where there is one.
        parallel: trainings at a time; with several GPUs each has one, otherwise the processor's cores are shared out. Under `minutes` the
            same for all trainings of a comparison.

    Raises:
        UserError: for a plan that cannot be carried out, or where no training came to an end.
    """
    place = str(choose_device(device))
    options = {"epochs": epochs, "max_minutes": minutes, "img_size": img_size, "batch_size": batch_size, "val_fraction": val_fraction}
    given = {name: value for name, value in options.items() if value is not None}
    names = _sound(listed(models) if isinstance(models, str) else models, seeds, parallel)
    words = {**({"recipe": recipe} if recipe else {}), **given}
    settings = _settings(data, recipe, given)
    plan = Plan(_found(data, settings), names, seeds, words, {**settings, **({"parallel": parallel} if settings["max_minutes"] else {})})
    _keep(plan, out)
    trials = plan.trials(out)
    problems = _trained(trials, plan, parallel)
    finished = [Outcome.read(trial) for trial in trials if trial.done]
    if not finished:
        raise UserError("\n".join(problems))
    outcomes = on_shared_seeds(finished)
    result = replace(_judged(plan, outcomes, problems), aside=len(finished) - len(outcomes))
    _written(result, out)  # before the measuring of speed, should that fail
    rows, unmeasured = _with_speed(result.rows, outcomes, place)
    result = replace(result, rows=tuple(rows), recommendation=recommend(rows), problems=(*problems, *unmeasured))
    return _written(result, out)


def _judged(plan: Plan, outcomes: Sequence[Outcome], problems: Sequence[str]) -> Comparison:
    """The comparison without speed; `UserError` where trainings were measured on other pictures."""
    figure, measured = headline(outcomes), outcomes[0].evaluation
    rows = summarise(outcomes, figure)
    if not same_pictures(outcomes):
        raise UserError(f"{plan.data}: found other held-out pictures than in earlier trainings, expected the same; choose another --out")
    tests = paired_with(rows[0].model, outcomes)
    rows = [replace(row, test=tests.get(row.model)) for row in rows]
    about = plan.data, measured["split"], measured["pictures"], figure, plan.seeds
    budget: Budget = "minutes" if plan.settings["max_minutes"] else "epochs"
    return Comparison(*about, tuple(rows), recommend(rows), budget, _curves(outcomes, figure, budget), problems=tuple(problems))


def _curves(outcomes: Sequence[Outcome], figure: str, budget: Budget) -> dict[str, list[list[tuple[float, float]]]]:
    """By model and training, epochs or minutes and the figure as evaluated then, of the averaged weights where there are such."""
    spent = {"epochs": "epoch", "minutes": "minutes"}[budget]
    columns = f"averaged_val_{figure}", f"val_{figure}"
    curves: dict[str, list[list[tuple[float, float]]]] = {outcome.trial.model: [] for outcome in outcomes}
    for outcome in outcomes:
        column = next((name for name in columns if any(name in row for row in outcome.curve)), "")
        curves[outcome.trial.model].append([(row[spent], row[column]) for row in outcome.curve if column in row])
    return curves


def _found(data: str, settings: Mapping[str, Any]) -> str:
    """The data, named in the same way from everywhere; `UserError` where it cannot be opened."""
    files = None if settings["list_file"] is None else Path(settings["list_file"])
    open_data(data, task=settings["task"], val_fraction=settings["val_fraction"], list_file=files)
    return data if data == "digits" else str(Path(data).resolve())


def _settings(data: str, recipe: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What recipe and options come to, without what each training has of its own."""
    named = load_recipe(recipe) if recipe else {}
    settings = TrainSettings.from_plain({**with_task_defaults(named, named.get("task") or likely_task(data)), **given}).plain()
    return {name: value for name, value in settings.items() if name not in OWN_SETTINGS}


def _keep(plan: Plan, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be made ({error.strerror or error}), expected a folder for the runs; choose another --out"
        ) from None
    plan.keep(out / "plan.json")


def _sound(models: Sequence[str], seeds: int, parallel: int) -> tuple[str, ...]:
    """The models; `UserError` for numbers and names that make no comparison."""
    if min(seeds, parallel) < 1:
        raise UserError(f"compare: found {seeds} seeds, {parallel} in parallel, expected numbers from 1 up")
    if not all(models) or len(set(models)) < len(models):
        raise UserError(f"models: found {', '.join(models)!r}, expected different names, separated by commas")
    for model in models:
        if not timm.is_model(variant(model)[0]):
            raise UserError(f"models: found {model!r}, expected names of 'foveate models' or of timm")
    return tuple(models)


def _trained(trials: Sequence[Trial], plan: Plan, parallel: int) -> list[str]:
    """Run what is not done yet, telling people how far it is; why trials failed."""
    console = Console(stderr=True)
    done = sum(trial.done for trial in trials)
    if done:
        console.print(f"{done} of {len(trials)} trainings are done already", highlight=False)
    columns = TextColumn("trainings"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("trainings", total=len(trials) - done)

        def finished(trial: Trial, problem: str) -> None:
            progress.advance(task)
            console.print(problem or _news(trial), highlight=False, markup=False, soft_wrap=True)

        return run_trials(trials, plan, parallel, finished)


def _news(trial: Trial) -> str:
    outcome = Outcome.read(trial)
    figure = headline([outcome])
    minutes, share = outcome.training["minutes"], outcome.evaluation["figures"][figure]
    return f"{trial}: {spoken(figure)} {share:.1%} after {minutes:.1f} min ({trial.folder})"


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
    batch = SPEED_BATCH if isinstance(recipe, Preprocessing) else 1
    options = (("in_chans", card.in_chans), *card.options.items())
    return Case(card.model, batch=batch, size=size, device=device, options=options, name=model)


def _written(result: Comparison, out: Path) -> Comparison:
    """The result with its files beside the runs: JSON, a page, a picture."""
    rows, title = [row.plain() for row in result.rows], Path(result.data).name
    picture = comparison(rows, result.curves, out / "comparison.png", figure=result.figure, budget=result.budget, title=title)
    result = replace(result, files=tuple(str(file) for file in (out / "comparison.json", out / "comparison.md", picture)))
    write_text(out / "comparison.json", result.to_json() + "\n")
    write_text(out / "comparison.md", result.markdown())
    return result
