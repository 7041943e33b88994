"""`foveate bench`: how fast backbones are on this machine, side by side."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, product
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from rich.console import Console, Group, RenderableType
from rich.table import Table

from foveate.device import choose_device
from foveate.errors import UserError
from foveate.factory import list_models
from foveate.plots.speed import growth, speed_and_accuracy
from foveate.published import published_top1
from foveate.speed.ceilings import Ceilings, best
from foveate.speed.rounds import Measured, measure
from foveate.speed.subject import Case, Dtype, Form, Mode

SIZES = (224, 320, 448, 640, 832, 1024)
BATCHES = (1, 2, 4, 8, 16, 32)
PASSES_OF_A_STEP = 3  # forward, and two products backward for each of its own

Grown = Literal["nothing", "size", "batch"]


@dataclass(frozen=True)
class Row:
    """One case as measured.

    Args:
        model, form, mode, batch, size, dtype: of the `Case`.
        images_per_second: median over the rounds of each round's median.
        of_rounds: the rounds' medians, in pictures per second.
        slowest_round, fastest_round: the smallest and the largest of these.
        milliseconds: of one pass over the whole batch, or one training step.
        peak_bytes: largest memory, see `Subject.peak_bytes`.
        parameters: frozen tables included.
        macs: multiply-accumulates of a forward pass over one picture.
        bytes_moved: that the operations of the plain model read and write in a forward pass over the batch, see `counting.count_moved`.
        matrix_share: of the measured matrix product's speed that the arithmetic used, 1 at most; a training step counts as three passes.
        copy_share: of the measured copy's speed that moving those bytes asked for, three times in a training step; what stays in the cache,
            or is joined, may bring it above 1.
        top1: on ImageNet-1K in percent as published, where it is known.
        steps: what `foveate.optimize` did.
    """

    model: str
    form: Form
    mode: Mode
    batch: int
    size: int
    dtype: Dtype
    images_per_second: float
    of_rounds: tuple[float, ...]
    slowest_round: float
    fastest_round: float
    milliseconds: float
    peak_bytes: int
    parameters: int
    macs: int
    bytes_moved: int
    matrix_share: float
    copy_share: float
    top1: float | None = None
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchResult:
    """All rows of one run, the machine they ran on, and what could not be measured."""

    rows: tuple[Row, ...]
    ceilings: Ceilings
    device: str
    threads: int
    rounds: int
    problems: tuple[str, ...] = ()

    def __rich__(self) -> RenderableType:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("model", no_wrap=True)
        table.add_column("form", no_wrap=True)
        for heading in self._headings():
            table.add_column(heading, justify="right", no_wrap=True)
        fastest = max(self.rows, key=lambda row: row.images_per_second)
        for row in self.rows:
            table.add_row(row.model, row.form, *self._cells(row, fastest))
        return Group(table, "", *self._notes())

    def _headings(self) -> tuple[str, ...]:
        varying = tuple(name for name in ("size", "batch") if len({getattr(row, name) for row in self.rows}) > 1)
        return (*varying, "pictures/s", "spread", "of fastest", "ms", "peak MiB", "M", "GMACs", "of matrix", "of copy")

    def _cells(self, row: Row, fastest: Row) -> list[str]:
        varying = [str(getattr(row, name)) for name in ("size", "batch") if len({getattr(row, name) for row in self.rows}) > 1]
        return [
            *varying,
            f"{row.images_per_second:.1f}",
            f"{row.slowest_round:.1f} to {row.fastest_round:.1f}",
            f"{median(own / its for own, its in zip(row.of_rounds, fastest.of_rounds, strict=True)):.2f}",
            f"{row.milliseconds:.1f}",
            f"{row.peak_bytes / 2**20:,.0f}",
            f"{row.parameters / 1e6:.2f}",
            f"{row.macs / 1e9:.2f}",
            f"{row.matrix_share:.0%}",
            f"{row.copy_share:.0%}",
        ]

    def _notes(self) -> list[str]:
        first = self.rows[0]
        what = "forward passes" if first.mode == "infer" else "training steps (forward, cross-entropy, backward, AdamW)"
        done = {f"{row.model}, optimized: {'; '.join(row.steps)}": None for row in self.rows if row.steps}
        return [
            f"{what} in {first.dtype} on {self.device}, {self.threads} threads; medians and spread of {self.rounds} rounds in turns, "
            "'of fastest': median of the rounds' ratios.",
            "peak MiB: beyond the process without a model. Every process keeps freed memory, as all verbs do.",
            f"ceilings measured beside: {2 * self.ceilings.macs_per_second / 1e9:.0f} GFLOP/s matrix product, "
            f"{self.ceilings.bytes_per_second / 1e9:.0f} GB/s copy. 'of matrix': share of the former that the GMACs make up; 'of copy': of "
            "the latter that the plain model's operations would ask for one by one, above 100% where numbers stay in the cache.",
            *done,
            *(f"not measured: {problem}" for problem in self.problems),
        ]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)


def bench(
    models: list[str],
    *,
    batch: int = 16,
    size: int = 224,
    dtype: Dtype = "float32",
    mode: Mode = "infer",
    compile: bool = False,  # noqa: A002 - the word that users know
    optimize: bool = False,
    device: str = "auto",
    threads: int = 0,
    rounds: int = 5,
    grow: Grown = "nothing",
    picture: Path | None = None,
) -> BenchResult:
    """Measure the speed and memory of models on this machine, in turns, each in a process of its own.

    Args:
        models: names of this project or of timm.
        batch: pictures at once.
        size: side of the square pictures, in pixels.
        dtype: float32, or bfloat16 or float16 by autocast.
        mode: infer (forward passes) or train (forward, cross-entropy, backward, AdamW).
        compile: measure every model also under torch.compile.
        optimize: measure our models also after foveate.optimize. Training on a processor is always measured after
            foveate.optimize_for_training too, as foveate train does it.
        device: cpu, cuda, cuda:1, mps ...; auto is an accelerator where there is one.
        threads: of the processor; 0 for PyTorch's choice.
        rounds: how often the models take turns; a round lasts about a second per model.
        grow: measure at several sizes (224 to 1024 px) or batches (1 to 32) instead of one.
        picture: write a PNG: published accuracy against measured speed, or with --grow time and memory against size or batch.

    Raises:
        UserError: for what cannot be measured.
    """
    if min(batch, size, rounds) < 1:
        raise UserError(f"bench: found batch {batch}, size {size}, rounds {rounds}, expected numbers from 1 up")
    place = str(choose_device(device))
    threads = threads or torch.get_num_threads()
    cases = [
        Case(name, form, mode, own_batch, own_size, dtype, place, threads)
        for own_size, own_batch in product(SIZES if grow == "size" else (size,), BATCHES if grow == "batch" else (batch,))
        for name in models
        for form in _forms(name, mode, place, compile=compile, optimize=optimize)
    ]
    found, problems, ceilings = _measured(cases, rounds)
    rows = tuple(_row(one, ceilings) for one in found)
    if not rows:
        raise UserError("\n".join(problems))
    if picture is not None:
        _draw(rows, grow, picture)
    return BenchResult(rows, ceilings, _described(place), threads, rounds, tuple(problems))


def _measured(cases: Sequence[Case], rounds: int) -> tuple[list[Measured], list[str], Ceilings]:
    """Cases of one size and batch take turns; the next size begins when they are through, so that memory need not hold all of them."""
    found: list[Measured] = []
    problems: list[str] = []
    ceilings = []
    with Console(stderr=True).status("starting") as status:
        for _, group in groupby(cases, key=lambda case: (case.size, case.batch)):
            measured, failed, ceiling = measure(list(group), rounds, status.update)
            found += measured
            problems += failed
            ceilings.append(ceiling)
    return found, problems, best(ceilings)


def _described(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _forms(model: str, mode: Mode, device: str, *, compile: bool, optimize: bool) -> list[Form]:  # noqa: A002
    """The forms in which a model is measured; only our own can be optimized, for training they are wherever `foveate train` does it."""
    forms: list[Form] = ["eager"]
    if compile:
        forms.append("compiled")
    if model in list_models() and (optimize if mode == "infer" else device == "cpu"):
        forms.append("optimized")
    return forms


def _row(found: Measured, ceilings: Ceilings) -> Row:
    case, medians = found.case, found.medians
    seconds = median(medians)
    passes = 1 if case.mode == "infer" else PASSES_OF_A_STEP
    moved = found.facts.moved * getattr(torch, case.dtype).itemsize
    return Row(
        model=case.model,
        form=case.form,
        mode=case.mode,
        batch=case.batch,
        size=case.size,
        dtype=case.dtype,
        images_per_second=found.images_per_second,
        of_rounds=tuple(case.batch / seconds for seconds in medians),
        slowest_round=case.batch / max(medians),
        fastest_round=case.batch / min(medians),
        milliseconds=1000 * seconds,
        peak_bytes=found.peak_bytes,
        parameters=found.facts.parameters,
        macs=found.facts.macs,
        bytes_moved=moved,
        matrix_share=passes * found.facts.macs * case.batch / seconds / ceilings.macs_per_second,
        copy_share=passes * moved / seconds / ceilings.bytes_per_second,
        top1=published_top1(case.model),
        steps=found.facts.steps,
    )


def _draw(rows: Sequence[Row], grow: Grown, out: Path) -> None:
    plain: list[dict[str, Any]] = [asdict(row) for row in rows]
    if grow == "nothing":
        speed_and_accuracy(plain, out, title="published accuracy against speed measured here")
        return
    points = [
        {"model": f"{row['model']} {row['form']}", "side": row["size"], "batch": row["batch"]}
        | {"seconds": row["milliseconds"] / 1000, "peak_mib": row["peak_bytes"] / 2**20}
        for row in plain
    ]
    growth(points, out, by=grow)
