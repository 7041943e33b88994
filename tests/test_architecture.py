"""The arrows of docs/architecture.md, and what importing the package may not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "foveate"
GROUND = {"errors", "card", "whole_files"}
# Each room, and the rooms it may import from beside its own.
ARROWS = {
    "errors": set(),
    "whole_files": {"errors"},
    "card": {"errors"},
    "metric_names": set(),
    "cores": set(),
    "device": {"errors"},
    "layers": set(),
    "weights": GROUND,
    "data": GROUND | {"cores"},
    "lettering": set(),
    "plots": GROUND | {"lettering", "metric_names"},
    "class_colours": set(),
    "overlays": {"class_colours", "lettering"},
    "counting": set(),
    "memory": set(),
    "published": set(),
    "recipes": GROUND,
    "models": {"layers"},
    "factory": GROUND | {"models", "weights"},
    "heads": GROUND | {"factory", "layers", "weights"},
    "speed": GROUND | {"factory", "counting", "layers", "memory", "models"},
    "opening": GROUND | {"factory", "heads", "weights"},
    "run": GROUND | {"weights"},
    "tasks": GROUND | {"factory", "heads", "data", "weights", "metric_names"},
    "comparing": GROUND | {"cores", "metric_names", "run"},
    "verbs": GROUND
    | {"__init__", "factory", "heads", "opening", "layers", "data", "weights", "tasks", "run", "plots", "overlays", "counting", "speed"}
    | {"comparing", "device", "published", "recipes", "metric_names"},
    "option_words": {"errors"},
    "cli": GROUND | {"verbs", "data", "tasks", "recipes", "memory", "option_words"},
    "__init__": {"factory", "memory", "opening", "speed", "weights"},
    "__main__": set(),
}


def imports(file: Path) -> set[str]:
    """Modules of the package that a file imports, by their dotted names."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "foveate":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if (PACKAGE / "/".join(name.split(".")[1:])).with_suffix(".py").exists() else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "foveate"}
    return found


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(file: Path) -> None:
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(file):
        parts = module.split(".")
        target = parts[1] if len(parts) > 1 else "__init__"
        assert target == room or target in ARROWS[room], f"{room} may not import {module}"
        if target not in {"__init__", "recipes"}:
            assert not (PACKAGE / "/".join(parts[1:])).is_dir(), f"{module}: import from the file that defines a thing"


@pytest.mark.parametrize("room", ["layers", "models", "weights", "heads"])
def test_the_ground_floor_knows_no_lightning(room: str) -> None:
    for file in (PACKAGE / room).glob("*.py"):
        assert "lightning" not in file.read_text()


def test_importing_the_package_loads_no_trainer_and_no_plotter() -> None:
    heavy = ("lightning", "matplotlib", "jsonargparse", "segmentation_models_pytorch", "pycocotools")
    code = f"import sys, foveate; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_room_is_told_of_in_the_architecture() -> None:
    page = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text()
    for entry in PACKAGE.iterdir():
        if entry.suffix == ".py" or (entry.is_dir() and entry.name != "__pycache__"):
            assert entry.name in page, entry.name
