"""A file appears under its name only when complete: it is written under another name beside it, and renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foveate.errors import UserError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; renamed to `path` at the end, so that a killed program leaves the old file or the new one.

    Where anything goes wrong before, the old file stays and the unfinished one is taken away.

    Raises:
        UserError: where the operating system refuses.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        said = f"{path}: cannot be written ({error.strerror or error})"
        raise UserError(f"{said}, expected a folder that exists, is writable and has room; make room or choose another name") from None
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 over whatever is at `path`; `UserError` where that is refused."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
