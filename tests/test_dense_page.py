"""The commands and the Python of docs/detection_and_segmentation.md run, on small generated pictures."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from foveate.cli import run_verb

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "detection_and_segmentation.md").read_text()
COMMANDS = [line.split() for block in re.findall(r"```console\n(.*?)```", PAGE, re.S) for line in block.splitlines()]


def test_commands_run_in_their_order(coco_folder, mask_folder, tmp_path, monkeypatch, capsys):
    coco_folder(tmp_path / "BOXES", outlines=False, pictures=(4, 2))
    mask_folder(tmp_path / "MASKS", pictures=(8, 2))
    (tmp_path / "PICTURES").mkdir()
    Image.new("RGB", (90, 64)).save(tmp_path / "PICTURES" / "dark.jpg")
    monkeypatch.chdir(tmp_path)
    assert {command[1] for command in COMMANDS} == {"doctor", "train", "evaluate", "predict"}
    for _, verb, *arguments in COMMANDS:
        shorter = {"train": ["--epochs", "1", "--num-workers", "0"], "evaluate": ["--num-workers", "0"]}.get(verb, [])
        assert run_verb(verb, [*arguments, *shorter]) == 0, (verb, capsys.readouterr().err)
        assert capsys.readouterr().out.strip(), verb
    written = ("boxes.png", "found.json", "found/dark_objects.png", "runs/boxes/examples.png", "runs/masks/confusion.png")
    assert all((tmp_path / name).stat().st_size > 0 for name in written)


def test_python_runs():
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_readme_shows_commands_of_the_page():
    shown = re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert shown is not None
    assert all(line.split() in COMMANDS for line in shown[1].splitlines())


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links_exist(target):
    assert (ROOT / "docs" / target).exists()
