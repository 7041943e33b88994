"""A model by name, with or without weights: the one place where models and weights meet."""

import logging
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import timm
from torch import nn

from foveate.errors import UserError, did_you_mean
from foveate.models import fvit, t2t_study, t2t_vit
from foveate.weights.load import load_weights

FAMILIES = (fvit, t2t_vit, t2t_study)
WEIGHT_FILE = "model.safetensors"

_logger = logging.getLogger(__name__)


def list_models(pattern: str = "*") -> list[str]:
    """Names of this project's models that match `pattern`, a shell pattern such as "fvit*", in the order of their sizes."""
    return [name for family in FAMILIES for name in family.default_cfgs if fnmatch(name, pattern)]


def create_model(
    name: str,
    weights: str | Path | None = None,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """A model of this project, or any model of timm, by its name.

    Args:
        name: see `list_models`; any other name is looked up in timm.
        weights: a file that `load_weights` reads, or a run folder; without it the model starts at random. What was left fresh or resized
            is logged as a warning, a load without either as information.
        num_classes: width of the classifier; 0 for none.
        in_chans: channels of the pictures; published weights are fitted to it.
        img_size: one number or (H, W) in pixels that position tables are made for. Ours take any other size as well.
        options: arguments of the model's class, such as `drop_path_rate` or `small_images`.

    Raises:
        UserError: for an unknown name or option, or weights that do not fit.
    """
    if not timm.is_model(name):
        raise UserError(f"model: found {name!r}, expected a name of 'foveate models' or of timm{did_you_mean([name], timm.list_models())}")
    only_named = img_size is not None and _takes_any_size(name)
    if img_size is not None and not only_named:
        options["img_size"] = img_size
    try:
        model: nn.Module = timm.create_model(name, num_classes=num_classes, in_chans=in_chans, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"model {name}: found an option it does not take ({error}); expected arguments of its class") from None
    if img_size is not None and only_named:
        size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        config: Any = model.pretrained_cfg
        model.pretrained_cfg = {**config, "input_size": (in_chans, *size)}  # type: ignore[assignment]
    if weights is not None:
        report = load_weights(model, weight_file(weights))
        _logger.log(logging.WARNING if report.fresh or report.resized else logging.INFO, "%s", report)
    return model


def weight_file(path: str | Path) -> Path:
    """`path` itself, or the weights inside it where it is a run folder; UserError where there is nothing."""
    path = Path(path)
    file = path / WEIGHT_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{path}: found no weights, expected a weight file or a run folder that holds {WEIGHT_FILE}")
    return file


def _takes_any_size(name: str) -> bool:
    """Whether the model has nothing that depends on the picture's size, so that its class knows no `img_size`."""
    return name in fvit.default_cfgs or not (name in list_models() or timm.get_pretrained_cfg(name).fixed_input_size)
