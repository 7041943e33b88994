"""The one error a user is meant to read."""


class UserError(Exception):
    """A mistake the user can mend: one line saying what was found, what was expected and what to do.

    The command line prints the line and leaves with exit code 2; from Python it is an ordinary exception.
    """
