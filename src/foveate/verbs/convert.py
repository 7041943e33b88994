"""`foveate convert`: a weight file of any layout, as one of ours or as Paddle's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from torch import nn

from foveate import __version__
from foveate.card import ModelCard
from foveate.errors import UserError
from foveate.factory import create_model
from foveate.tasks.preparation import preprocessing_of
from foveate.weights.load import LoadReport, load_file, translate
from foveate.weights.readers import WeightFile, read_weights
from foveate.weights.save import write_paddle, write_safetensors

SUFFIXES = (".safetensors", ".pdparams")


def convert(source: Path, *, model: str, out: Path, num_classes: int | None = None, allow_partial: bool = False) -> LoadReport:
    """Loads `source` into `model` and writes it to `out`: `.safetensors` with a model card, or `.pdparams`, which holds weights alone.

    Args:
        source: a file of ours, the authors' `.pth.tar` or `.pth`, or Paddle's `.pdparams`.
        model: the name of the model that the weights belong to.
        out: the file to write; it must not exist yet.
        num_classes: width of the classifier; by default that of the file. With another one the classifier is written fresh.
        allow_partial: write what fits, with the rest of the model at random, instead of refusing.

    Returns:
        What was loaded.

    Raises:
        UserError: where `out` exists or has another suffix, or the weights do not fit.
    """
    if out.suffix not in SUFFIXES:
        raise UserError(f"out: found {out.name!r}, expected a name that ends in {' or '.join(SUFFIXES)}")
    if out.exists():
        raise UserError(f"out: {out} exists already; name another file, or remove this one first")
    file = read_weights(source)
    card = file.card or ModelCard(model, _num_classes(file, model, source))
    if num_classes not in (None, card.num_classes):
        card = replace(card, num_classes=num_classes, class_names=(), results={})
    size = file.card.picture_recipe.size if file.card else None
    network = create_model(model, num_classes=card.num_classes, in_chans=card.in_chans, img_size=size, **card.options)
    report = load_file(network, file, source, allow_partial=allow_partial)
    if out.suffix == ".pdparams":
        write_paddle(out, network.state_dict(), token_order=report.token_order)
    else:
        write_safetensors(out, network.state_dict(), _finished(card, model, network, report, foreign=file.card is None))
    return report


def _num_classes(file: WeightFile, model: str, source: Path) -> int:
    """The class count of a file without a card: the rows of its classifier, 0 where it has none."""
    config = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    entry = (config and config.classifier) or "head"
    tensors, _ = translate(file, source)
    weight = tensors.get(f"{entry if isinstance(entry, str) else entry[0]}.weight")
    return 0 if weight is None or weight.ndim == 0 else weight.shape[0]


def _finished(card: ModelCard, model: str, network: nn.Module, report: LoadReport, *, foreign: bool) -> ModelCard:
    """The card of what was loaded; pictures for a foreign file are prepared as in the model's published evaluation."""
    options = {name: value for name, value in card.options.items() if name != "token_order"}
    if report.token_order == "released":
        options["token_order"] = report.token_order
    config: Any = network.pretrained_cfg
    preprocessing = preprocessing_of(config, config["input_size"][-1], card.in_chans) if foreign else card.preprocessing
    return replace(card, model=model, options=options, preprocessing=preprocessing, foveate=__version__)
