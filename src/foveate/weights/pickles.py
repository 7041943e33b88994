"""Reading pickles in such a way that nothing can happen.

A pickle is a program for a small stack machine, and Python's own machine imports and calls whatever the program names. The machine here can
do neither: a name stays a `Name`, a call becomes a `Call` that records what was to be called with what. The reader of each layout looks
at these records and takes the tensors out. Lengths are checked against the bytes that are there, and memory is spent on nothing else.

`torch.load(weights_only=True)` is not used because it spends memory on a file's word: a few kilobytes that chain calls of `_codecs.encode`,
which it allows, grow to gigabytes, and an old-format file with a lying size makes it ask for that size.
"""

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from mmap import mmap
from typing import IO, Any, cast

# The largest model with its optimiser and averaged weights needs 201,000 operations and 2,000 values at once; more is meant to stall us.
MAX_OPERATIONS = 300_000
MAX_VALUES = 50_000

Stream = IO[bytes] | mmap

PERSISTENT = "persistent id"  # path of the call that stands for a storage kept outside the pickle
ORDERED_DICT = "collections.OrderedDict"


class UnreadableError(Exception):
    """A file that is not what it should be; the text says what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function named in a pickle, such as "numpy.ndarray": only its name."""

    path: str


@dataclass(slots=True)
class Call:
    """A call that a pickle asks for and nobody makes: the name, the arguments, and the state set on the result afterwards."""

    path: str
    arguments: tuple[Any, ...]
    state: Any = None


def read_pickle(stream: Stream, allowed: Collection[str]) -> tuple[Any, list[Call]]:
    """The value of the pickle that starts at the stream's position, and the persistent ids in it; the stream then stands behind it.

    Plain values are themselves, an ordered dictionary is a dictionary, everything else is a `Name` or a `Call`.

    Args:
        stream: where `read(n)` returns what is there, however large n is: an `io.BytesIO` or an `mmap`.
        allowed: the names that may occur, such as "numpy.core.multiarray._reconstruct".

    Raises:
        UnreadableError: for any other name, a broken or an endless pickle.
    """
    machine = _Machine(allowed)
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], stream))):
            if operation.name == "STOP":
                break
            if count > MAX_OPERATIONS or len(machine.stack) > MAX_VALUES:
                raise UnreadableError("found a pickle far longer than that of any model, expected a dictionary of tensors")
            machine.step(operation.name, argument)
        return machine.take(1)[0], machine.persistent_ids
    except (ValueError, LookupError) as error:
        raise UnreadableError(f"found a broken pickle ({error}); the file is cut off or damaged") from None


class _Machine:
    """The stack, the marks on it, and the memo."""

    def __init__(self, allowed: Collection[str]) -> None:
        self.allowed = allowed
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.persistent_ids: list[Call] = []

    def step(self, operation: str, argument: Any) -> None:
        if operation in _LITERALS:
            self.stack.append(argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation])
        elif operation in _STEPS:
            _STEPS[operation](self, argument)
        else:
            raise UnreadableError(f"found a pickle with the operation {operation}, which weights do not need")

    def take(self, count: int) -> list[Any]:
        """The top `count` values, removed; the topmost stands last."""
        height = len(self.stack) - count
        if height < 0:
            raise UnreadableError("found a pickle that takes more values than it made")
        values = self.stack[height:]
        del self.stack[height:]
        return values

    def since_mark(self) -> list[Any]:
        """The values since the last mark, removed with it."""
        return self.take(len(self.stack) - self.marks.pop())

    def name(self, path: str) -> None:
        if path not in self.allowed:
            raise UnreadableError(f"found a pickle that asks for {path[:80]!r}, which weights do not need; nothing of it was run")
        self.stack.append(Name(path))

    def name_from_stack(self) -> None:
        module, attribute = self.take(2)
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise UnreadableError("found a pickle with a name that is not text")
        self.name(f"{module}.{attribute}")

    def call(self) -> None:
        function, arguments = self.take(2)
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise UnreadableError("found a pickle that calls something without a name")
        ordinary_dictionary = function.path == ORDERED_DICT and not arguments
        self.stack.append({} if ordinary_dictionary else Call(function.path, arguments))

    def set_state(self) -> None:
        """Keeps the state of a recorded call; that of a dictionary (a state_dict's version notes) is of no use to a reader."""
        target, state = self.take(2)
        if isinstance(target, Call):
            target.state = state
        elif not isinstance(target, dict):
            raise UnreadableError("found a pickle that sets the state of a plain value")
        self.stack.append(target)

    def persistent(self) -> None:
        call = Call(PERSISTENT, tuple(self.take(1)))
        self.persistent_ids.append(call)
        self.stack.append(call)

    def fill(self, pairs: list[Any]) -> None:
        """Adds `pairs`, keys and values in turn, to the dictionary on top. Other keys than plain ones could take for ever to hash."""
        target = self.stack[-1]
        keys, values = pairs[::2], pairs[1::2]
        if not isinstance(target, dict) or not all(isinstance(key, str | int | float | bytes | None) for key in keys):
            raise UnreadableError("found a pickle with a dictionary whose keys are neither text nor numbers")
        target.update(zip(keys, values, strict=True))

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise UnreadableError("found a pickle that appends to something other than a list")
        target.extend(values)

    def memoize(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def recall(self, key: int) -> None:
        self.stack.append(self.memo[key])


_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "STRING", "SHORT_BINSTRING", "BINSTRING"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    )
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, version: None,
    "FRAME": lambda machine, length: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "GLOBAL": lambda machine, name: machine.name(name.replace(" ", ".")),
    "STACK_GLOBAL": lambda machine, _: machine.name_from_stack(),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.set_state(),
    "BINPERSID": lambda machine, _: machine.persistent(),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "SETITEM": lambda machine, _: machine.fill(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.fill(machine.since_mark()),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.take(3))),
    "MEMOIZE": lambda machine, _: machine.memoize(len(machine.memo)),
    "PUT": lambda machine, key: machine.memoize(key),
    "BINPUT": lambda machine, key: machine.memoize(key),
    "LONG_BINPUT": lambda machine, key: machine.memoize(key),
    "GET": lambda machine, key: machine.recall(key),
    "BINGET": lambda machine, key: machine.recall(key),
    "LONG_BINGET": lambda machine, key: machine.recall(key),
}
