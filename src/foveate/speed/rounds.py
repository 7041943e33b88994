"""Several cases side by side: each in a process of its own, measured in turns, so that all of them see the same machine."""

import multiprocessing
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from types import TracebackType
from typing import Any

from foveate.errors import UserError
from foveate.speed.ceilings import Ceilings, best, measure_ceilings
from foveate.speed.subject import Case, Facts, Subject

END_SECONDS = 5.0


@dataclass(frozen=True)
class Measured:
    """A case's facts, the seconds of its passes round by round, and its peak memory in bytes."""

    case: Case
    facts: Facts
    rounds: tuple[tuple[float, ...], ...]
    peak_bytes: int

    @property
    def medians(self) -> list[float]:
        """Of each round, in seconds of one pass."""
        return [median(seconds) for seconds in self.rounds]

    @property
    def images_per_second(self) -> float:
        """Median over the rounds of each round's median."""
        return self.case.batch / median(self.medians)


class Worker:
    """A process that holds one warm model. A context manager.

    Raises:
        UserError: where the case cannot be measured; from `ask`, where the process has died, which a lack of memory does.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.connection, theirs = _context().Pipe()
        self.process = _context().Process(target=_serve, args=(case, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.connection.close()
        self.process.join(END_SECONDS)
        if self.process.is_alive():
            self.process.kill()

    def ask(self, what: str) -> Any:
        """The answer to "facts", "round" or "peak_bytes", as the `Subject` gives it."""
        try:
            self.connection.send(what)
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(END_SECONDS)
            raise UserError(
                f"{self.case}: its process died (exit code {self.process.exitcode}), probably for want of memory; "
                "expected a smaller batch or size"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(case: Case, connection: Connection) -> None:
    """In the worker's process: answer until nobody asks any more."""
    subject: Subject | None = None
    while True:
        try:
            what = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            subject = subject or Subject(case)
            answer: Any = getattr(subject, what)
            connection.send(answer() if callable(answer) else answer)
        except Exception as error:
            connection.send(error if isinstance(error, UserError) else UserError(_described(case, error)))


def _described(case: Case, error: Exception) -> str:
    first = next(iter(str(error).splitlines()), "")
    return f"{case}: {type(error).__name__}: {first}"


def _context() -> Any:
    """Processes that are copies of one which has everything imported already, where the system can do that."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["foveate.speed.subject"])
    return context


def measure(cases: Sequence[Case], rounds: int, say: Callable[[str], None]) -> tuple[list[Measured], list[str], Ceilings]:
    """Every case once a round, and the machine's ceilings between the rounds.

    Args:
        cases: of one number format on one device.
        rounds: at least 1.
        say: called with what goes on, for people who wait.

    Returns:
        What was measured, why other cases could not be, and the ceilings.
    """
    times: dict[Worker, list[tuple[float, ...]]] = {}
    problems: list[str] = []
    ceilings = []
    found = []
    with ExitStack() as stack:
        for case in cases:
            say(f"{case}: warming up")
            times[stack.enter_context(Worker(case))] = []
        for number in range(-1, rounds):
            if number >= 0:
                ceilings.append(measure_ceilings(cases[0].dtype, cases[0].device))
            for worker in list(times):
                say(f"{worker.case}: {f'round {number + 1} of {rounds}' if number >= 0 else 'warming up'}")
                try:
                    answer = worker.ask("round" if number >= 0 else "facts")
                except UserError as error:
                    problems.append(str(error))
                    del times[worker]
                else:
                    times[worker] += [tuple(answer)] if number >= 0 else []
        for worker, own in times.items():
            try:
                found.append(Measured(worker.case, worker.ask("facts"), tuple(own), worker.ask("peak_bytes")))
            except UserError as error:
                problems.append(str(error))
    return found, problems, best(ceilings)
