"""`foveate models`: every model of this project, its size, and what was published about it."""

import json
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table

from foveate.errors import UserError
from foveate.factory import list_models
from foveate.published import PUBLISHED

NOTES = (
    "M: million parameters, frozen tables included. GMACs: for one picture of 224 x 224, norms and activations not counted.",
    "top-1: ImageNet-1K, in percent, as published by the source, or derived from differences that it states; not measured here.",
    "weights: 'authors' where the authors offer a file, which --weights FILE reads.",
    "small pictures (32 to 64 px): every model takes small_images=true, with strides 1, 2, 4, 8 (FViT) or 2, 4, 4 (T2T-ViT).",
)


@dataclass(frozen=True)
class ModelTable:
    """Models by name, in the order of `list_models`."""

    names: tuple[str, ...]

    def __rich__(self) -> RenderableType:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("model", no_wrap=True)
        for heading in ("M", "GMACs", "top-1"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("weights", no_wrap=True)
        table.add_column("source of top-1")
        for name in self.names:
            facts = PUBLISHED[name]
            sizes = f"{facts.parameters / 1e6:.3f}", f"{facts.macs / 1e9:.3f}"
            top1 = "-" if facts.top1 is None else f"{facts.top1:.1f}"
            table.add_row(name, *sizes, top1, "authors" if facts.weights else "none", facts.source)
        return Group(table, "", *NOTES)

    def to_json(self) -> str:
        """Write a list of objects: model, parameters, macs, top1 (percent or null), source, weights (whether the authors offer a file)."""
        return json.dumps([{"model": name, **PUBLISHED[name]._asdict()} for name in self.names], indent=2)


def models(pattern: str = "*") -> ModelTable:
    """List the models of this project with parameters, multiply-accumulates and published accuracy.

    Args:
        pattern: a shell pattern, for example "fvit*" (in quotes, so that the shell leaves it alone).

    Raises:
        UserError: where no name matches.
    """
    names = list_models(pattern)
    if not names:
        raise UserError(f"models: found no name that matches {pattern!r}, expected a pattern such as 'fvit*'; 'foveate models' lists all")
    return ModelTable(tuple(names))
