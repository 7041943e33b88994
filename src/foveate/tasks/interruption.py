"""Ctrl-C between two steps: the training stops where a checkpoint can say exactly how far it came."""

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """Holds the user's Ctrl-C back until `asked` is looked at; a second one stops at once.

    A context manager. It does nothing outside of the main thread, where Python sets no handlers, nor where `held_back` is False: of
    several processes each would stop at another step.
    """

    def __init__(self, *, held_back: bool) -> None:
        self.asked = False
        self._process = os.getpid()
        self._held_back = held_back and threading.current_thread() is threading.main_thread()
        self._earlier: Any = None

    def __enter__(self) -> "Interruption":
        if self._held_back:
            self._earlier = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._held_back:
            signal.signal(signal.SIGINT, self._earlier)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a process forked by this one: what it does is its parent's matter
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        sys.stderr.write("\ninterrupted: writing a checkpoint after this step; once more stops at once\n")
