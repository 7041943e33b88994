"""What the parser says, in the words of this project: its help, and its complaints (found, expected, what to do)."""

import inspect
import re
from argparse import SUPPRESS, Action
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from jsonargparse import DefaultHelpFormatter

from foveate.errors import did_you_mean

LETTERS = {int: "N", float: "X"}
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", Path: "a path", NoneType: "null for none"}
OF_EVERY_VERB = ("json", "debug", "help")
WRONG_VALUE = re.compile(r'Parser key "(?P<name>\w+)":.*?(?:Got|Given) value: (?P<found>.*)', re.DOTALL)
UNKNOWN = re.compile(r"unrecognized arguments: (?P<found>.*)", re.DOTALL)
MISSING = re.compile(r"the following arguments are required: (?P<names>[\w, ]+)")
NO_VALUE = re.compile(r"argument (?P<name>--[\w.]+): expected (?:one|at least one) argument")


class HelpFormatter(DefaultHelpFormatter):
    """jsonargparse's help as it is typed: hyphens in the names of options, a letter for a number, defaults where there are any."""

    def format_help(self) -> str:
        return typed(super().format_help())

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        hint = getattr(action, "_typehint", None)
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        return next((LETTERS[kind] for kind in kinds if kind in LETTERS), super()._get_default_metavar_for_optional(action))

    def _get_help_string(self, action: Action) -> str:
        text, default = action.help or "", action.default
        if default is None or default is SUPPRESS or default in ("", {}, []):
            return text  # which says what happens without the option
        return f"{text} (default: {str(default).lower() if isinstance(default, bool) else default})"


def typed(text: str) -> str:
    """The text with hyphens in the names of options, as they are typed: --batch-size, which is batch_size inside."""
    return re.sub(r"(?<=--)[\w.]+", lambda name: name[0].replace("_", "-"), text)


class Wording:
    """How a verb's parameters are called on the command line.

    Args:
        verb: its name.
        parameters: of its function, or of `TrainSettings`.
        more: options beside them, such as "recipe".
    """

    def __init__(self, verb: str, parameters: Iterable[inspect.Parameter], more: Sequence[str] = ()) -> None:
        self.verb, self.parameters = verb, {parameter.name: parameter for parameter in parameters}
        self.positional = positional(list(self.parameters.values()))
        self.options = [f"--{name}" for name in (*self.parameters, *more, *OF_EVERY_VERB) if name not in self._places()]

    def _places(self) -> list[str]:
        return [parameter.name for parameter in self.positional]

    def usage(self) -> str:
        """The verb with what it cannot do without; the rest is "[options]"."""
        words = ["foveate", self.verb]
        for parameter in self.positional:
            name = parameter.name.upper() + " ..." * (get_origin(parameter.annotation) is list)
            words.append(name if parameter.default is parameter.empty else f"[{name}]")
        needed = [name for name, one in self.parameters.items() if one not in self.positional and one.default is one.empty]
        words += [typed(f"--{name} {name.upper()}") for name in needed]
        return " ".join([*words, "[options]"])

    def complaint(self, message: str) -> str:
        """One line for the user of what the parser says; what is not known here stays as it is."""
        if (wrong := WRONG_VALUE.match(message)) is not None and wrong["name"] in self.parameters:
            return f"{wrong['name']}: found {wrong['found'].strip()!r}, expected {expected(self.parameters[wrong['name']].annotation)}"
        if (unknown := UNKNOWN.match(message)) is not None:
            return self._unknown(unknown["found"])
        if (missing := MISSING.match(message)) is not None:
            names = [name.upper() if name in self._places() else typed(f"--{name}") for name in missing["names"].split(", ")]
            return f"found no {' and no '.join(names)}, expected {self.usage()}"
        if (valueless := NO_VALUE.match(message)) is not None:
            return f"{typed(valueless['name'])}: found nothing behind it, expected a value"
        return " ".join(message.split())

    def _unknown(self, found: str) -> str:
        names = [word.partition("=")[0] for word in found.split() if word.startswith("--")]
        if any(name.removeprefix("--") in self._places() for name in names):
            return f"found {typed(found)}, expected its value alone: {self.usage()}"
        near = did_you_mean(map(typed, names), map(typed, self.options))
        return f"found {typed(found)}, expected {self.usage()}{near or f'; foveate {self.verb} --help lists them'}"


def positional(parameters: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    """What stands on the command line without a name: the first parameter, and others without a default, but for keyword-only ones."""
    open_ones = [parameter for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
    return [parameter for parameter in open_ones if parameter is open_ones[0] or parameter.default is parameter.empty]


def expected(annotation: Any) -> str:
    """What a parameter of this type takes, in words."""
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, inner))
    if isinstance(annotation, UnionType):
        return ", or ".join(map(expected, inner))
    if get_origin(annotation) is list:
        return "a list such as [8, 11]" if inner[0] is int else f"one or more, each {expected(inner[0])}"
    if get_origin(annotation) is dict:
        return "options with values, as in --model-options.paths 2"
    return WORDS.get(annotation, str(annotation))
