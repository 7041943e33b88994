"""The commands of docs/performance.md and the README's on speed are ones that the command line takes."""

import re
from pathlib import Path

import pytest

from foveate.cli import fill_switches, make_parser
from foveate.verbs.bench import bench

ROOT = Path(__file__).resolve().parents[1]
PAGES = "".join((ROOT / page).read_text() for page in ("docs/performance.md", "README.md"))
COMMANDS = sorted(set(re.findall(r"^(?:    )?(foveate bench .*)$", PAGES, re.M)))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_taken(command: str) -> None:
    arguments = fill_switches(command.split()[2:], ["compile", "optimize"])
    options = make_parser("bench", bench, arguments).parse_args(arguments)
    assert "fvit" in options.models[0]


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 6
