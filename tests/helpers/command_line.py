"""`foveate ARGUMENTS` in processes of their own: copies of one that has PyTorch loaded already, since loading takes seconds."""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

Command = Callable[..., "subprocess.CompletedProcess[str]"]
"""Arguments, and `cwd`, in; exit code and what was said out."""


@contextmanager
def command_line(folder: Path) -> Iterator[Command]:
    """A `Command`; `folder` is for the files it needs."""
    out, err = folder / "out", folder / "err"

    def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        for file in (out, err):
            file.write_text("")
        request = {"arguments": arguments, "folder": str(cwd or Path.cwd()), "out": str(out), "err": str(err)}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return subprocess.CompletedProcess(arguments, int(server.stdout.readline()), out.read_text(), err.read_text())

    with subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield run


def serve() -> None:
    """A request a line on the standard input, its exit code on the standard output."""
    door = import_module("foveate_command")
    for module in ("foveate.cli", *(f"foveate.verbs.{verb}" for verb in door.VERBS)):
        import_module(module)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            prepare(**json.loads(line))
            end(door.main)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def prepare(arguments: list[str], folder: str, out: str, err: str) -> None:
    """What a shell does before it starts a command."""
    os.chdir(folder)
    for name, descriptor in ((os.devnull, 0), (out, 1), (err, 2)):
        os.dup2(os.open(name, os.O_RDWR), descriptor)
    sys.argv = ["foveate", *arguments]


def end(main: Callable[[], None]) -> None:
    """Run the command and leave with its exit code at once: taking PyTorch apart takes another second."""
    code = 0
    try:
        main()
    except SystemExit as asked:
        code = asked.code
    except Exception:
        code = 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
