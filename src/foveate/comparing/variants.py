"""Models of a comparison as words: names, with options behind them where they are variants."""

import re
from typing import Any

import yaml

from foveate.errors import UserError


def listed(models: str) -> list[str]:
    """The models of a list with commas between them; a comma within brackets, as in `fvit_tiny:depths=[1,1,2,1]`, is part of a model."""
    return [model.strip() for model in re.split(r",(?![^\[]*\])", models)]


def variant(model: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a model: `fvit_tiny:mixer=pooling:paths=2` is `fvit_tiny` with two arguments of `create_model`.

    Raises:
        UserError: for options that are not written so.
    """
    name, *options = model.split(":")
    pairs = [option.partition("=") for option in options]
    if not name or not all(key.isidentifier() and value for key, _, value in pairs):
        raise UserError(f"models: found {model!r}, expected NAME or NAME:option=value:option=value")
    try:
        return name, {key: yaml.safe_load(value) for key, _, value in pairs}
    except yaml.YAMLError:
        raise UserError(f"models: found {model!r}, expected values as in YAML, such as 3, true, pooling or [1,1,2,1]") from None
