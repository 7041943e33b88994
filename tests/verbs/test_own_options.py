"""Options of another task are refused in one line that names them and those of the model's own."""

from pathlib import Path

import pytest

from foveate.errors import UserError
from foveate.verbs import evaluate, predict
from foveate.verbs.own_options import WHAT_IT_DOES, require_own_options

OWN = {"classify": (), "detect": ("results",), "segment": ("flip", "batch_size")}


@pytest.mark.parametrize(
    ("given", "task", "message"),
    [
        (["flip"], "detect", "found --flip for a model that detects, expected of such options only --results; leave it out"),
        (
            ["results", "flip"],
            "classify",
            "found --results, --flip for a model that classifies, expected no such option; leave them out",
        ),
        (
            ["results"],
            "segment",
            "found --results for a model that segments, expected of such options only --flip, --batch-size; leave it out",
        ),
    ],
)
def test_another_tasks_options_are_named(given: list[str], task: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        require_own_options(given, OWN, task, Path("run"))
    assert str(error.value) == f"run: {message}"


def test_own_options_pass() -> None:
    require_own_options(["flip", "batch_size"], OWN, "segment", Path("run"))
    require_own_options([], OWN, "classify", Path("run"))


@pytest.mark.parametrize("verb", [evaluate, predict])
def test_both_verbs_tell_of_every_task(verb) -> None:
    assert verb.OWN_OPTIONS.keys() == WHAT_IT_DOES.keys()
