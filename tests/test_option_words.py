"""What the parser says, in words that a user can act on."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import docstring_parser
import pytest

from foveate.cli import make_parser, wording_of
from foveate.option_words import Wording, expected, typed
from foveate.tasks.settings import TrainSettings
from foveate_command import VERBS


def verb(source: Path, data: str, *, batch_size: int | None = None, kind: Literal["a", "b"] = "a", model: str) -> None:
    """Stands for the function of a verb."""


WORDING = Wording("verb", inspect.signature(verb).parameters.values(), ("recipe",))
USAGE = "foveate verb SOURCE DATA --model MODEL [options]"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "Parser key \"batch_size\": Does not validate against any of the Union subtypes Errors: - Expected a <class 'int'> "
            "Given value type: <class 'str'> Given value: value: x",
            "batch_size: found 'value: x', expected a whole number, or null for none",
        ),
        ("Parser key \"kind\": Expected a typing.Literal['a', 'b']. Got value: c", "kind: found 'c', expected a, b"),
        ('Parser key "unheard": what\n  now', 'Parser key "unheard": what now'),
        ("unrecognized arguments: --batch_siz 8", f"found --batch-siz 8, expected {USAGE}; did you mean --batch-size?"),
        ("unrecognized arguments: --recip=x", f"found --recip=x, expected {USAGE}; did you mean --recipe?"),
        ("unrecognized arguments: --jsn", f"found --jsn, expected {USAGE}; did you mean --json?"),
        ("unrecognized arguments: --xyz", f"found --xyz, expected {USAGE}; foveate verb --help lists them"),
        ("unrecognized arguments: more", f"found more, expected {USAGE}; foveate verb --help lists them"),
        ("unrecognized arguments: --data digits", f"found --data digits, expected its value alone: {USAGE}"),
        ("the following arguments are required: data, model", f"found no DATA and no --model, expected {USAGE}"),
        ("argument --batch_size: expected one argument", "--batch-size: found nothing behind it, expected a value"),
    ],
)
def test_a_complaint_says_what_was_found_and_expected(said: str, expected: str) -> None:
    assert WORDING.complaint(said) == expected


@pytest.mark.parametrize(
    ("annotation", "words"),
    [(list[int], "a list such as [8, 11]"), (list[Path], "one or more, each a path"), (bool | None, "true or false, or null for none")],
)
def test_types_in_words(annotation: Any, words: str) -> None:
    assert expected(annotation) == words


@pytest.mark.parametrize("name", VERBS)
def test_every_parameter_of_every_verb_is_explained_and_has_a_type_in_words(name: str) -> None:
    source = TrainSettings if name == "train" else getattr(import_module(f"foveate.verbs.{name}"), name)
    parameters = inspect.signature(source).parameters
    assert {entry.arg_name for entry in docstring_parser.parse(source.__doc__ or "").params} == set(parameters)
    assert not [words for words in map(expected, (one.annotation for one in parameters.values())) if "typing" in words or "<class" in words]


def test_help_has_letters_for_numbers_and_defaults_where_there_are_any() -> None:
    function = import_module("foveate.verbs.bench").bench
    text = " ".join(make_parser("bench", function, []).format_help().split())
    assert "--batch N pictures at once. (default: 16)" in text
    assert "--picture PICTURE write a PNG" in text and "null" not in text
    assert text.startswith(f"usage: {wording_of('bench', function).usage()}")


def test_names_are_typed_with_hyphens() -> None:
    assert typed("--batch_size a_b --x.y_z=q_r") == "--batch-size a_b --x.y-z=q_r"
