"""What the parser says, in the words of this project: its help, and its complaints (found, expected, what to do)."""

import inspect
import re
from argparse import SUPPRESS, Action
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from jsonargparse import DefaultHelpFormatter

from foveate.errors import did_you_mean

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", Path: "a path", NoneType: "null for none"}
WRONG_VALUE = re.compile(r'Parser key "(?P<name>\w+)":.*[Vv]alue: (?P<found>.*)', re.DOTALL)
UNKNOWN = re.compile(r"unrecognized arguments: (?P<found>.*)", re.DOTALL)


class HelpFormatter(DefaultHelpFormatter):
    """jsonargparse's help as it is typed: hyphens in the names of options, a letter for a number, defaults where there are any."""

    def format_help(self) -> str:
        return re.sub(r"(?<=--)[\w.]+", lambda name: name[0].replace("_", "-"), super().format_help())

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        kind = super()._get_type_str(action) or ""
        letters = {"int": "N", "float": "X"}
        return next(
            (letter for start, letter in letters.items() if kind.startswith(start)), super()._get_default_metavar_for_optional(action)
        )

    def _get_help_string(self, action: Action) -> str:
        text, default = action.help or "", action.default
        if default is None or default is SUPPRESS or default in ("", {}, []):
            return text  # which says what happens without the option
        return f"{text} (default: {str(default).lower() if isinstance(default, bool) else default})"


def usage(verb: str, positional: Sequence[inspect.Parameter], parameters: Sequence[inspect.Parameter]) -> str:
    """The first line of a verb's help: what it cannot do without, the rest as "[options]"."""
    words = ["foveate", verb]
    for parameter in positional:
        name = parameter.name.upper() + " ..." * (get_origin(parameter.annotation) is list)
        words.append(name if parameter.default is parameter.empty else f"[{name}]")
    needed = [parameter.name for parameter in parameters if parameter not in positional and parameter.default is parameter.empty]
    words += [f"--{name.replace('_', '-')} {name.upper()}" for name in needed]
    return " ".join([*words, "[options]"])


def complaint(message: str, parameters: Mapping[str, inspect.Parameter]) -> str:
    """One line for the user of what jsonargparse says about options made from `parameters`; what is unknown here stays as it is."""
    wrong, unknown = WRONG_VALUE.match(message), UNKNOWN.match(message)
    if wrong is not None and wrong["name"] in parameters:
        return f"{wrong['name']}: found {wrong['found'].strip()!r}, expected {expected(parameters[wrong['name']].annotation)}"
    if unknown is not None:
        words = [word.partition("=")[0].replace("_", "-") for word in unknown["found"].split() if word.startswith("--")]
        known = [f"--{name.replace('_', '-')}" for name in parameters]
        return f"unrecognized arguments: {unknown['found']}{did_you_mean(words, known) or '; --help lists the options'}"
    return " ".join(message.split())


def expected(annotation: Any) -> str:
    """What a parameter of this type takes, in words."""
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, inner))
    if isinstance(annotation, UnionType):
        return ", or ".join(map(expected, inner))
    if get_origin(annotation) is list:
        return f"a list such as [a, b], each {expected(inner[0])}"
    if get_origin(annotation) is dict:
        return "options with values, as in --model-options.paths 2"
    return WORDS[annotation]
