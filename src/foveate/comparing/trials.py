"""The trainings of a comparison: each in a process of its own, with a run folder of its own, continued where it was cut off."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from foveate.comparing.variants import variant
from foveate.errors import UserError
from foveate.metric_names import HEADLINES
from foveate.run import RunFolder
from foveate.whole_files import write_text


@dataclass(frozen=True)
class Place:
    """What a training has of the machine while others run beside it.

    Args:
        environment: variables of its process.
        num_workers: processes that read its pictures, where the recipe leaves that open; None: as if it were alone.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    num_workers: int | None = None


@dataclass(frozen=True)
class Plan:
    """What all trainings of a comparison share.

    Args:
        data: folder of pictures, or "digits".
        models: names of this project or of timm, with options behind them where they are variants: see `variant`.
        seeds: trainings of each model, with the seeds 0, 1, ...
        options: of `foveate train` beside these, by name, as they were given.
        settings: what recipe and options come to; where trainings are limited by time also how many run at a time, as they take it from
            each other.
    """

    data: str
    models: tuple[str, ...]
    seeds: int
    options: Mapping[str, Any]
    settings: Mapping[str, Any]

    def keep(self, file: Path) -> None:
        """Write the plan to `file`; where an earlier one has trainings, only models and seeds may have been added or left out.

        Raises:
            UserError: where something else differs, since its trainings could not be compared with these.
        """
        begun = any(file.parent.glob("*/seed*/resume.ckpt")) or any(file.parent.glob("*/seed*/training.json"))
        if begun and file.is_file():
            earlier = json.loads(file.read_text(encoding="utf-8"))
            before = {"data": earlier["data"], **earlier["settings"]}
            now = {"data": self.data, **self.settings}
            for name in before.keys() | now.keys():
                if before.get(name) != now.get(name):
                    found = f"found {name} {now.get(name)}, expected {before.get(name)} as in {file.name}"
                    raise UserError(f"{file.parent}: {found}; choose another --out")
        write_text(file, json.dumps(asdict(self), indent=2) + "\n")

    def readers(self, place: Place) -> dict[str, Any]:
        """The number of processes that read pictures, where the place has one and the recipe leaves it open."""
        on_disk = self.data != "digits"
        return {"num_workers": place.num_workers} if on_disk and place.num_workers and self.settings.get("num_workers") is None else {}

    def judging(self, place: Place) -> dict[str, Any]:
        """The settings that the evaluations share with the trainings, where they say something."""
        shared = {name: self.settings.get(name) for name in ("list_file", "accelerator", "precision", "num_workers")}
        return {name: value for name, value in shared.items() if value not in (None, "auto")} | self.readers(place)

    def trials(self, out: Path) -> list["Trial"]:
        """All trainings, first every model with seed 0: a comparison that is cut off has then seen all models."""
        folders = {model: out / model.replace(":", "-") for model in self.models}
        return [Trial(model, seed, folders[model] / f"seed{seed}") for seed in range(self.seeds) for model in self.models]


@dataclass(frozen=True)
class Trial:
    """One training: a model, a seed, and the run folder, which also keeps what came out."""

    model: str
    seed: int
    folder: Path

    @property
    def training_file(self) -> Path:
        """What `foveate train` said, as JSON."""
        return self.folder / "training.json"

    @property
    def evaluation_file(self) -> Path:
        """What `foveate evaluate` said, as JSON; written last."""
        return self.folder / "evaluation.json"

    @property
    def done(self) -> bool:
        return self.evaluation_file.is_file()

    @property
    def guesses(self) -> Path:
        """A line per picture, of models that classify."""
        return self.folder / "guesses.csv"

    @property
    def log(self) -> Path:
        """What the commands told people."""
        return self.folder.with_suffix(".log")

    def run(self, plan: Plan, place: Place) -> None:
        """Train and evaluate, or go on where that stopped.

        Raises:
            UserError: with the last words of a command that failed; where a training that outlived its comparison still runs; where the
                evaluation has nothing to compare by.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as log:  # the commands inherit the file, and with it the claim
            self._claim(log)
            if not self.training_file.is_file():
                write_text(self.training_file, json.dumps(self._said(self._arguments(plan, place), place, log), indent=2) + "\n")
            results = ["--results", str(self.guesses)] if self._classifies() else []
            evaluation = self._said(["evaluate", str(self.folder), plan.data, *_flags(plan.judging(place)), *results], place, log)
        if not HEADLINES.keys() & evaluation["figures"].keys():
            raise UserError(f"{self}: found no figure to compare by, expected objects or labelled pixels among what is held out")
        write_text(self.evaluation_file, json.dumps(evaluation, indent=2) + "\n")

    def __str__(self) -> str:
        return f"{self.model}, seed {self.seed}"

    def _arguments(self, plan: Plan, place: Place) -> list[str]:
        """The command that trains: from the last checkpoint, or from the beginning, in a folder that holds nothing else."""
        if RunFolder(self.folder).checkpoint.is_file():
            return ["train", "--resume", str(self.folder)]
        shutil.rmtree(self.folder, ignore_errors=True)  # a training that was cut off before its first checkpoint
        model, own = variant(self.model)
        options = {**plan.settings.get("model_options", {}), **own}
        shape = ["--model-options", json.dumps(options)] if options else []
        start = ["train", plan.data, "--model", model, "--seed", str(self.seed), "--out", str(self.folder)]
        return [*start, *_flags({**plan.readers(place), **plan.options}), *shape]

    def _classifies(self) -> bool:
        return "top1" in json.loads(self.training_file.read_text(encoding="utf-8"))["figures"]

    def _said(self, arguments: Sequence[str], place: Place, log: TextIO) -> Any:
        """The JSON of one command of this project; what it tells people goes to the log."""
        log.seek(0, os.SEEK_END)
        begin = log.tell()
        command = [sys.executable, "-m", "foveate", *arguments, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **place.environment}, check=False)
        if done.returncode < 0:
            raise UserError(f"{self}: killed by signal {-done.returncode}, perhaps for want of memory (see {self.log})")
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            last = self.log.read_bytes()[begin:].decode("utf-8", errors="replace").strip().splitlines()[-1:]
            raise UserError(f"{self}: {' '.join(last) or f'exit code {done.returncode}'} (see {self.log})") from None

    def _claim(self, log: TextIO) -> None:
        """Keep other processes from this trial for as long as this one or its command has the log open, where the system can do that."""
        if sys.platform == "win32":
            return
        import fcntl  # noqa: PLC0415 - not on every system

        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = f"{self}: found another process that trains or evaluates it"
            raise UserError(f"{problem}, expected none; wait for its end, or end it (see {self.log})") from None
        except OSError:
            return  # a file system without claims


@dataclass(frozen=True)
class Outcome:
    """What a finished trial left.

    Args:
        trial: which one.
        training, evaluation: the JSON of the two commands.
        right: by picture, whether the model was right about it; empty for tasks other than classification.
        curve: a row per epoch, as in the run's metrics.csv.
    """

    trial: Trial
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    right: Mapping[str, bool]
    curve: Sequence[Mapping[str, float]]

    @classmethod
    def read(cls, trial: Trial) -> "Outcome":
        training, evaluation = (json.loads(file.read_text(encoding="utf-8")) for file in (trial.training_file, trial.evaluation_file))
        right = {}
        if trial.guesses.is_file():
            with trial.guesses.open(encoding="utf-8", newline="") as lines:
                right = {row["picture"]: row["truth"] == row["guess"] for row in csv.DictReader(lines)}
        with RunFolder(trial.folder).metrics.open(encoding="utf-8", newline="") as lines:
            curve = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]
        return cls(trial, training, evaluation, right, curve)


def _flags(options: Mapping[str, Any]) -> list[str]:
    """Options as words of the command line."""
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
