"""Compiled libraries are kept for later processes: only the first one on a machine waits for the compiler."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import get_ident

SECONDS = 120
"""After which a compiler is given up."""


def load(source: Path, compiler: Sequence[str], options: Sequence[str]) -> ctypes.CDLL:
    """The library that `compiler source options` makes, as an earlier process made it or compiled now.

    Args:
        source: the C++ file; it may include those beside it.
        compiler: the compiler with words of its own.
        options: its other words.

    Raises:
        OSError, subprocess.SubprocessError: where the compiler fails, or what it made cannot be loaded.
    """
    kept = _place(source, compiler, options)
    if kept is not None and kept.exists():
        with suppress(OSError):  # damaged, or on a disk from which nothing may be run
            return ctypes.CDLL(str(kept))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"{source.stem}.so"
        _run([*compiler, *options, str(source), "-o", str(made)])
        library = ctypes.CDLL(str(made))
        if kept is not None:
            _keep(made, kept)
    return library


def cache_folder() -> Path | None:
    """`FOVEATE_CACHE`, else `foveate` in the user's folder for caches (`XDG_CACHE_HOME`, `~/.cache`); made where it is missing.

    None where it cannot be written, and where others may write: what lies there is run.
    """
    try:
        folder = Path(os.environ.get("FOVEATE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foveate")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
    except (OSError, RuntimeError):  # the latter: nobody's home is known
        return None
    mine = state.st_uid == os.getuid() and not state.st_mode & 0o022
    return folder if mine and os.access(folder, os.W_OK) else None


def _place(source: Path, compiler: Sequence[str], options: Sequence[str]) -> Path | None:
    """Where the library is kept: a name for the words of source and headers, options, compiler and processor together.

    Which processor it is the compiler says itself, by the macros it sets for `-march=native`: a home may be shared by several machines.
    """
    folder = cache_folder()
    if folder is None:
        return None
    macros = _run([*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
    digest = hashlib.sha256("\0".join([*compiler, *options, macros]).encode())
    for file in sorted(source.parent.glob("*.[ch]*")):
        digest.update(file.read_bytes())
    return folder / f"{source.stem}-{digest.hexdigest()[:32]}.so"


def _run(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=SECONDS).stdout


def _keep(made: Path, kept: Path) -> None:
    """Under its name only when it is whole: other processes may look for it meanwhile."""
    partial = kept.with_suffix(f".{os.getpid()}-{get_ident()}")
    try:
        shutil.copyfile(made, partial)
        partial.replace(kept)
    except OSError:  # a full disk
        partial.unlink(missing_ok=True)
