"""The run folder: what a training leaves behind and every later verb reads."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from foveate.card import ModelCard
from foveate.errors import UserError
from foveate.weights.save import write_safetensors
from foveate.whole_files import write_text


@dataclass(frozen=True)
class RunFolder:
    """The names of a run's files. Every file appears under its name only when complete."""

    path: Path

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def card(self) -> Path:
        return self.path / "model.json"

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def checkpoint(self) -> Path:
        return self.path / "resume.ckpt"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    @property
    def confusion(self) -> Path:
        return self.path / "confusion.png"

    @property
    def examples(self) -> Path:
        return self.path / "examples.png"

    @property
    def filters(self) -> Path:
        return self.path / "filters.png"

    def check_free(self) -> None:
        """`UserError` where the path is neither absent nor a folder that is empty or holds only the recipe of a run that never got far."""
        if self.path.is_file():
            raise UserError(f"{self.path}: found a file, expected the name of a folder to make; choose another --out")
        if self.path.is_dir() and any(entry.name != self.recipe.name for entry in self.path.iterdir()):
            other = f"choose another --out, or continue a run with --resume {self.path}"
            raise UserError(f"{self.path}: found a folder that is not empty, expected a new one; {other}")

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """A new run in a folder that is free, see `check_free`; `UserError` where it is not, or cannot be made."""
        cls(path).check_free()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be made ({error.strerror or error}); choose another --out") from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The run at `path`; `UserError` where it has no checkpoint to continue from."""
        run = cls(path)
        missing = [file.name for file in (run.recipe, run.checkpoint) if not file.is_file()]
        if missing:
            raise UserError(f"{path}: found no {' and no '.join(missing)}, expected the folder of a run that wrote a checkpoint")
        return run

    def write_recipe(self, settings: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
        """The settings as YAML, ready to be given as --recipe again, under a comment with what they came to on this machine."""
        head = "".join(f"# {name}: {value}\n" for name, value in resolved.items())
        write_text(self.recipe, head + yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))

    def read_recipe(self) -> dict[str, Any]:
        """The settings that `write_recipe` wrote."""
        try:
            settings = yaml.safe_load(self.recipe.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{self.recipe}: unreadable ({error}), expected the settings of a run") from None
        if not isinstance(settings, dict):
            raise UserError(f"{self.recipe}: found {type(settings).__name__}, expected a table of settings")
        return settings

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """One line per epoch; a figure that an epoch has not is an empty cell."""
        text = io.StringIO()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows)
        write_text(self.metrics, text.getvalue())

    def write_model(self, model: nn.Module, card: ModelCard) -> None:
        """The weights with the card inside, and the card beside them for people to read."""
        write_safetensors(self.weights, model.state_dict(), card)
        write_text(self.card, card.to_json() + "\n")
