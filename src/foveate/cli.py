"""The command line: each verb's typed signature becomes its options, and its result what is printed."""

import inspect
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any

import docstring_parser
from jsonargparse import ArgumentError, ArgumentParser
from rich.console import Console

from foveate.data.opening import likely_task
from foveate.errors import UserError
from foveate.memory import keep_freed_memory
from foveate.option_words import HelpFormatter, Wording
from foveate.recipes import list_recipes, load_recipe, with_task_defaults
from foveate.tasks.settings import TrainSettings
from foveate_command import VERBS

SUCCESS, USER_ERROR, INTERRUPTED = 0, 2, 130
WIDE = 10_000


def run_verb(verb: str, arguments: Sequence[str]) -> int:
    """Run `foveate verb arguments` and print its result; the exit code: 0, 2 for a user's mistake, 130 when interrupted."""
    quieten_libraries()
    keep_freed_memory()
    try:
        function = getattr(import_module(f"foveate.verbs.{verb}"), verb)
        wording = wording_of(verb, function)
        switches = [name for name, parameter in wording.parameters.items() if parameter.annotation in (bool, bool | None)]
        arguments = fill_switches([hyphens_to_underscores(argument) for argument in arguments], switches)
        try:
            options = vars(make_parser(verb, function, arguments).parse_args(arguments))
        except ArgumentError as error:
            raise UserError(wording.complaint(str(error))) from error
        values = {name: options[name] for name in wording.parameters}
        result = function(TrainSettings(**values), option_names(arguments)) if verb == "train" else function(**values)
        return show(result, options["json"])
    except UserError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        sys.stderr.writelines(f"foveate {verb}: {' '.join(line.split())}\n" for line in str(error).splitlines())
        return USER_ERROR
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"foveate {verb}: {'; '.join(('interrupted', *map(str, interrupt.args)))}\n")
        return INTERRUPTED


def wording_of(verb: str, function: Callable[..., Any]) -> Wording:
    """How the verb's parameters are called; those of `train` are the fields of `TrainSettings`, and a recipe."""
    if verb == "train":
        return Wording(verb, inspect.signature(TrainSettings).parameters.values(), ("recipe",))
    return Wording(verb, inspect.signature(function).parameters.values())


def make_parser(verb: str, function: Callable[..., Any], arguments: Sequence[str]) -> ArgumentParser:
    """The options of a verb, from its signature; for `train` from `TrainSettings`, with the recipe named in `arguments` as defaults."""
    wording, source = wording_of(verb, function), TrainSettings if verb == "train" else function
    parser = ArgumentParser(
        prog=f"foveate {verb}",
        usage=wording.usage(),
        description=VERBS[verb],
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    helps = {entry.arg_name: entry.description for entry in docstring_parser.parse(source.__doc__ or "").params}
    for parameter in wording.positional:
        add_positional(parser, parameter, helps.get(parameter.name) or "")
    names = {parameter.name for parameter in wording.positional}
    if verb == "train":
        recipes = f"settings by name, which explicit options override: {', '.join(list_recipes())}; or a file"
        parser.add_argument("--recipe", type=str, help=recipes)
        parser.add_class_arguments(TrainSettings, skip=names, fail_untyped=True)
        parser.set_defaults(training_defaults(arguments))
    else:
        parser.add_function_arguments(function, skip=names, fail_untyped=True)
    parser.add_argument("--json", action="store_true", help="print the result as JSON, for other programs")
    parser.add_argument("--debug", action="store_true", help="show where an error arose")
    return parser


def training_defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """What stands below the explicit options: the recipe that is named, or the recipe of the task, "detect" or "segment", below one that
    names no task. A recipe that does is whole in itself, the same from Python; a run that is resumed has its own settings.

    The task is the one that is named, the recipe's, or what the data is recognised as.
    """
    name = option_value(arguments, "--recipe")
    if option_value(arguments, "--resume") is not None:
        if name is not None:
            raise UserError(f"recipe: found {name} beside --resume, expected one of them: a resumed run has its own settings; leave it out")
        return {}
    recipe = load_recipe(name) if name else {}
    TrainSettings.from_plain(recipe)
    task = option_value(arguments, "--task") or recipe.get("task", "auto")
    data = first_positional(arguments)
    if task == "auto" and data is not None:
        task = likely_task(data)
    return with_task_defaults(recipe, task)


def first_positional(arguments: Sequence[str]) -> str | None:
    """The first argument that is neither an option nor the value of one; switches have their values by now (`fill_switches`)."""
    before = ""
    for argument in arguments:
        is_value = before.startswith("--") and "=" not in before and before not in ("--json", "--debug")
        if not argument.startswith("--") and not is_value:
            return argument
        before = argument
    return None


def add_positional(parser: ArgumentParser, parameter: inspect.Parameter, help_text: str) -> None:
    """What stands on the command line without a name: a verb's first parameter, and others without a default; a list takes one or more."""
    several = getattr(parameter.annotation, "__origin__", None) is list
    kind = parameter.annotation.__args__[0] if several else parameter.annotation
    if several:
        parser.add_argument(parameter.name, type=kind, nargs="+", help=help_text)
    elif parameter.default is parameter.empty:
        parser.add_argument(parameter.name, type=kind, help=help_text)
    else:
        parser.add_argument(parameter.name, type=kind, nargs="?", default=parameter.default, help=help_text)


def fill_switches(arguments: Sequence[str], switches: Sequence[str]) -> list[str]:
    """The arguments with `true` behind every switch that stands alone: `--compile` means `--compile true`."""
    filled = []
    for argument, following in pairwise([*arguments, ""]):
        filled.append(argument)
        if argument.removeprefix("--") in switches and argument.startswith("--") and following.lower() not in {"true", "false"}:
            filled.append("true")
    return filled


def option_value(arguments: Sequence[str], option: str) -> str | None:
    """The value given to `option`, as `--option value` or `--option=value`; the last one where it is given twice, as parsers have it."""
    found = None
    for argument, following in pairwise([*arguments, ""]):
        if argument == option:
            found = following
        if argument.startswith(f"{option}="):
            found = argument.removeprefix(f"{option}=")
    return found


def option_names(arguments: Sequence[str]) -> frozenset[str]:
    """The options among the arguments, as the names of their parameters: "--batch_size=8" is batch_size, "--model_options.paths" is
    model_options.
    """
    return frozenset(re.split(r"[=.]", argument.removeprefix("--"))[0] for argument in arguments if argument.startswith("--"))


def hyphens_to_underscores(argument: str) -> str:
    """`--batch-size=8` as `--batch_size=8`: option names are Python names inside."""
    name, equals, value = argument.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if name.startswith("--") else argument


def show(result: Any, as_json: bool) -> int:
    """Print a verb's result, for people or as JSON; the exit code follows the result's `problems`, if it has any.

    Of several processes that a launcher started (torchrun, SLURM or Lightning's own) the first one prints. Into a file or a pipe lines are
    as long as they need to be.
    """
    if all(os.environ.get(place, "0") == "0" for place in ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")):
        if as_json:
            sys.stdout.write(result.to_json() + "\n")
        else:
            console = Console(width=None if sys.stdout.isatty() else WIDE)
            console.print(result if hasattr(result, "__rich__") else str(result), soft_wrap=True, highlight=False, markup=False)
    return USER_ERROR if getattr(result, "problems", ()) else SUCCESS


def quieten_libraries() -> None:
    """Leave the screen to our own messages: what Lightning tells of devices stands in the plan of a training as well."""
    logging.getLogger("lightning").setLevel(logging.ERROR)
