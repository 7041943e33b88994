"""The README's commands run, and its Python runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from foveate.data.digits import open_digits

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```console\n(.*?)```", README, re.S) for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with one picture, in which the commands are run one after another."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "PICTURES").mkdir()
    open_digits().val.open(0).save(folder / "PICTURES" / "digit.png")
    return folder


@pytest.mark.long
def test_commands_run_in_their_order(folder: Path) -> None:
    commands = [line.split() for line in COMMANDS if line.startswith("foveate ")]
    assert {command[1] for command in commands} >= {"doctor", "train", "evaluate", "predict", "models"}
    for command in commands:
        shorter = ["--epochs", "1"] if command[1] == "train" else []
        arguments = [sys.executable, "-m", *command, *shorter]
        done = subprocess.run(
            arguments, cwd=folder, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout.strip(), command
    assert (folder / "sheet.png").stat().st_size > 0


def test_other_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in COMMANDS:
        if command.startswith("make "):
            assert f"\n{command.split()[1]}:" in makefile


def test_python_runs() -> None:
    for code in re.findall(r"```python\n(.*?)```", README, re.S):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
