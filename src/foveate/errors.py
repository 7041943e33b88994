"""The one error a user is meant to read."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake the user can mend: one line saying what was found, what was expected and what to do.

    The command line prints the line and leaves with exit code 2; from Python it is an ordinary exception.
    """


def did_you_mean(words: Iterable[str], known: Iterable[str]) -> str:
    """The end of a message on unknown words: "; did you mean a or b?" where some that are known are close, otherwise nothing."""
    among = list(known)
    close = dict.fromkeys(name for word in words for name in get_close_matches(word, among, n=2, cutoff=0.7))
    return f"; did you mean {' or '.join(close)}?" if close else ""
