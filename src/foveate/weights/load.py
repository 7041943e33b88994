"""Loading weights loudly: everything in the file finds its place and every place is filled, or the model stays as it was.

The exceptions are few and named in the report: a classifier for other classes stays fresh, tables and first layers are fitted to other
picture sizes and channels, and what a foreign file stores beside its weights is put aside.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from foveate.errors import UserError
from foveate.weights.names import layout_of_theirs, released_fvit, to_ours
from foveate.weights.pickles import UnreadableError
from foveate.weights.readers import WeightFile, read_weights

Change = tuple[str, tuple[int, ...], tuple[int, ...]]  # name, shape found, shape made or expected
State = dict[str, Tensor]

SHOWN = 8  # names in one message
TOKEN_ORDERS = ("raster", "released")


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor, of the file and of the model; names are the model's, in `ignored` the file's.

    Attributes:
        path, source: the file, and the part of it that was read.
        matched: tensors that were loaded.
        resized: those of them that were fitted to this model first.
        fresh: the classifier, where its class count differs: as it was before.
        ignored: what the file holds beside weights, and its classifier where the model has none.
        missing, unexpected, mismatched: only in the model, only in the file, in both with different shapes; empty unless `allow_partial`.
        not_finite: loaded tensors with NaN or infinity; empty unless `allow_partial`.
        token_order: what the model's property of this name was set to; None where nothing was set.
    """

    path: Path
    source: str
    matched: tuple[str, ...] = ()
    resized: tuple[Change, ...] = ()
    fresh: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Change, ...] = ()
    not_finite: tuple[str, ...] = ()
    token_order: str | None = None

    @property
    def faults(self) -> list[str]:
        """What keeps the weights from fitting, one phrase each."""
        expected = [f"{name} {found}, expected {wanted}" for name, found, wanted in self.mismatched]
        lists = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": expected, "not finite": self.not_finite}
        return [f"{len(names)} {fault} ({_listed(names)})" for fault, names in lists.items() if names]

    def __str__(self) -> str:
        """A summary of a few lines, without a newline at the end."""
        lines = [f"{self.path} ({self.source}): {len(self.matched)} tensors loaded"]
        lines += [f"resized: {name} {found} -> {made}" for name, found, made in self.resized]
        lines += [f"left fresh, as the class count differs: {_listed(self.fresh)}"] if self.fresh else []
        lines += [f"ignored: {len(self.ignored)} ({_listed(self.ignored)})"] if self.ignored else []
        lines += [f"token order: {self.token_order}"] if self.token_order else []
        return "\n".join(lines + self.faults)


def load_weights(model: nn.Module, path: str | Path, *, allow_partial: bool = False) -> LoadReport:
    """Loads a weight file of any layout that `read_weights` knows into `model`, casting to the model's types.

    Args:
        model: one of ours or of timm, of any class count, picture size and channels.
        path: the file.
        allow_partial: load what fits, and only report the rest, instead of raising.

    Raises:
        UserError: one line naming what is missing, unexpected, of another shape or not finite. The model is then unchanged.
    """
    return load_file(model, read_weights(path), path, allow_partial=allow_partial)


def load_file(model: nn.Module, file: WeightFile, path: str | Path, *, allow_partial: bool = False) -> LoadReport:
    """`load_weights` for a file that is read already; `path` only names it in messages."""
    tensors, aside = translate(file, path)
    own = model.state_dict()
    classifier = _classifier_names(model, own, tensors)
    fresh = _with_other_classes(own, tensors, classifier)
    headless = {name for name in classifier if name in tensors and not any(head in own for head in classifier)}
    offered = {name: tensor for name, tensor in tensors.items() if name not in fresh and name not in headless}
    fitted, resized = _fit(model, own, offered, path)
    fitting = {name: tensor for name, tensor in fitted.items() if name in own and tensor.shape == own[name].shape}
    report = LoadReport(
        path=Path(path),
        source=file.source,
        matched=tuple(fitting),
        resized=tuple(change for change in resized if change[0] in fitting),
        fresh=tuple(name for name in own if name in fresh),
        ignored=(*file.dropped, *aside, *sorted(headless)),
        missing=tuple(name for name in own if name not in fitted and name not in fresh),
        unexpected=tuple(name for name in fitted if name not in own),
        mismatched=tuple((n, tuple(t.shape), tuple(own[n].shape)) for n, t in fitted.items() if n in own and n not in fitting),
        not_finite=tuple(name for name, tensor in fitting.items() if not bool(torch.isfinite(tensor).all())),
        token_order=_token_order(model, file, path),
    )
    if not fitting or (report.faults and not allow_partial):
        raise UserError(_refusal(model, file, tensors, report))
    if report.token_order:
        model.token_order = report.token_order  # type: ignore[assignment]  # a property of FViT
    model.load_state_dict({**own, **fitting})
    return report


def translate(file: WeightFile, path: str | Path) -> tuple[State, tuple[str, ...]]:
    """The file's tensors under our names, and the names of those that no model of ours has; `UserError` where two collide."""
    layout = layout_of_theirs(file.tensors)
    if layout is None:
        return file.tensors, ()
    try:
        return to_ours(file.tensors, layout)
    except UnreadableError as error:
        raise UserError(f"{path}: {error}") from None


def _config(model: nn.Module, key: str) -> Any:
    """An entry of timm's description of a model; None for a model without one."""
    return (getattr(model, "pretrained_cfg", None) or {}).get(key)


def _modules(entry: str | Sequence[str] | None) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def _classifier_names(model: nn.Module, own: State, tensors: State) -> set[str]:
    modules = _modules(_config(model, "classifier"))
    return {name for name in (*own, *tensors) if name.rpartition(".")[0] in modules}


def _with_other_classes(own: State, tensors: State, classifier: set[str]) -> set[str]:
    """The names of `classifier` where the file's has another class count, or none at all: shapes that differ in the first place only."""
    heads = classifier & own.keys()
    if not heads & tensors.keys():
        return heads
    both = [(own[name].shape, tensors[name].shape) for name in heads & tensors.keys()]
    same_inside = all(len(a) == len(b) and a[1:] == b[1:] for a, b in both)
    return heads if same_inside and any(a != b for a, b in both) else set()


def _fit(model: nn.Module, own: State, tensors: State, path: str | Path) -> tuple[State, list[Change]]:
    """Lets the model fit tensors of its own names and dimensions to its picture size and channels; the others pass unchanged."""
    candidates = {name: tensor for name, tensor in tensors.items() if name in own and tensor.ndim == own[name].ndim}
    adapt: Callable[[State], tuple[State, list[Change]]] | None = getattr(model, "adapt_state_dict", None)
    try:
        fitted, changes = adapt(candidates) if adapt else _adapt_first_convolutions(model, own, candidates)
    except RuntimeError as error:
        raise UserError(f"{path}: these weights cannot be fitted to the model's picture size and channels ({error})") from None
    return {**tensors, **fitted}, changes


def _adapt_first_convolutions(model: nn.Module, own: State, tensors: State) -> tuple[State, list[Change]]:
    """What timm does for its models: the first convolution's channels are summed or repeated to the model's."""
    fitted, changes = dict(tensors), []
    for name in (f"{module}.weight" for module in _modules(_config(model, "first_conv"))):
        if name in tensors and tensors[name].ndim == 4 and tensors[name].shape[1] != own[name].shape[1]:
            fitted[name] = adapt_input_conv(own[name].shape[1], tensors[name])
            changes.append((name, tuple(tensors[name].shape), tuple(fitted[name].shape)))
    return fitted, changes


def _token_order(model: nn.Module, file: WeightFile, path: str | Path) -> str | None:
    """The token order that the weights were trained with, as their layout or their card says; None where nothing says it."""
    if not hasattr(model, "token_order"):
        return None
    layout = layout_of_theirs(file.tensors)
    if layout is not None:
        return layout.token_order
    order = file.card.options.get("token_order", TOKEN_ORDERS[0]) if file.card else None
    if order is not None and order not in TOKEN_ORDERS:
        raise UserError(f"{path}: found token_order {order!r} in the model card, expected one of {', '.join(TOKEN_ORDERS)}")
    return order


def _refusal(model: nn.Module, file: WeightFile, tensors: Mapping[str, Tensor], report: LoadReport) -> str:
    name = _config(model, "architecture") or type(model).__name__
    layout = layout_of_theirs(file.tensors)
    said = ""
    if layout is not None and layout.token_order and name != released_fvit(tensors):
        said = f" (these are weights of the released family, use {released_fvit(tensors)})"
    elif file.card is not None and file.card.model != name:
        said = f" (the file says it is a {file.card.model})"
    advice = "allow_partial loads what fits" if report.matched else "nothing in it fits"
    return f"{report.path}: these weights do not fit {name}{said}: {', '.join(report.faults)}; nothing was loaded ({advice})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name[:80] for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
