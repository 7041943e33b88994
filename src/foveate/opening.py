"""A trained model from its file alone, whatever its task."""

from pathlib import Path

from torch import nn

from foveate.card import ModelCard
from foveate.errors import UserError
from foveate.factory import create_model, weight_file
from foveate.weights.load import load_file
from foveate.weights.readers import read_stored_card, read_weights


def open_model(path: str | Path) -> tuple[nn.Module, ModelCard]:
    """The model stored in a run folder or a weight file of this project, ready for evaluation, and its card.

    By the card's task it is a classifier, a `foveate.heads.detector.Detector` or a `foveate.heads.semantic_fpn.SemanticFPN`.

    Raises:
        UserError: where the file has no card: then only `create_model(name, weights=path)` can tell what it is.
    """
    path = weight_file(path)
    file = read_weights(path)
    card = _present(file.card, path)
    model = _built(card)
    if load_file(model, file, path).fresh:
        raise UserError(f"{path}: found no classifier of {card.num_classes} classes, as its card says; the file is damaged")
    return model.eval(), card


def read_card(path: str | Path) -> ModelCard:
    """The card of a run folder or a weight file of this project, without reading the weights; `UserError` where it has none."""
    path = weight_file(path)
    return _present(read_stored_card(path), path)


def _present(card: ModelCard | None, path: Path) -> ModelCard:
    if card is None:
        raise UserError(f"{path}: found weights without a model card, expected a file of this project; run 'foveate convert' on it first")
    return card


def _built(card: ModelCard) -> nn.Module:
    """The model that a card describes, with random weights."""
    if card.task == "classify":
        size = card.picture_recipe.size
        return create_model(card.model, num_classes=card.num_classes, in_chans=card.in_chans, img_size=size, **card.options)
    from foveate.heads.create import create_dense  # noqa: PLC0415 - torchvision's detectors are slow to import, and rarely needed

    return create_dense(card.model, card.head, card.num_classes, in_chans=card.in_chans, **card.options)[0]
