"""Recipes: settings of whole trainings as YAML files, holding only what differs from the defaults of `TrainSettings`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from foveate.errors import UserError, did_you_mean

FOLDER = Path(__file__).parent


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def load_recipe(name: str | Path) -> dict[str, Any]:
    """The settings of a recipe.

    Args:
        name: one of `list_recipes()`, or the path of a YAML file, told by its ending .yaml or .yml.

    Raises:
        UserError: for an unknown name, a file that is absent, or one that is not a table of settings.
    """
    file = Path(name)
    if file.suffix not in {".yaml", ".yml"}:
        if str(name) not in list_recipes():
            near = did_you_mean([str(name)], list_recipes())
            raise UserError(f"recipe: found {str(name)!r}, expected a .yaml file or one of {', '.join(list_recipes())}{near}")
        file = FOLDER / f"{name}.yaml"
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"recipe {file}: cannot be read ({error.strerror}), expected a YAML file of training settings") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {file}: is not YAML ({' '.join(str(error).split())}), expected lines of 'setting: value'") from None
    if settings is not None and not (isinstance(settings, dict) and all(isinstance(key, str) for key in settings)):
        raise UserError(f"recipe {file}: found {type(settings).__name__}, expected lines of 'setting: value'")
    return settings or {}


def with_task_defaults(recipe: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The settings of `recipe` for `task`, on top of the recipe "detect" or "segment" where it names no task; one that does is whole."""
    below = load_recipe(task) if task in ("detect", "segment") and "task" not in recipe else {}
    return {**below, **recipe, "task": task}
