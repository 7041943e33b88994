"""Weight files of the world: .safetensors, PyTorch's .pth in every wrapping, Paddle's .pdparams. Nothing in a file is ever executed.

What a file is, its content says; its name does not matter.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

from foveate.card import ModelCard
from foveate.errors import UserError
from foveate.weights.paddle_files import read_paddle
from foveate.weights.pickles import UnreadableError
from foveate.weights.torch_files import LEGACY_START, read_torch_legacy, read_torch_zip

FileLayout = Literal["safetensors", "torch", "paddle"]

CARD_KEY = "foveate"  # where the header of our .safetensors holds the model card
PEEK = 512
KNOWN_OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with 'git lfs pull'",
    b"<": "a web page: the download gave a page instead of the file",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"\x89HDF": "an HDF5 file of Keras",
    b"\x93NUMPY": "a numpy array",
}


@dataclass(frozen=True)
class WeightFile:
    """What a file holds, under the file's own names; matrices are (out x in), as PyTorch has them.

    Attributes:
        tensors: name -> tensor on the CPU.
        layout: how the bytes are laid out.
        source: which part of the file the tensors are, such as "state_dict_ema", or "bare".
        card: the model card, in files that this project wrote.
        dropped: names beside the tensors that are not tensors.
    """

    tensors: dict[str, Tensor]
    layout: FileLayout
    source: str
    card: ModelCard | None = None
    dropped: tuple[str, ...] = ()


def read_weights(path: str | Path) -> WeightFile:
    """Reads a weight file.

    Raises:
        UserError: one line, where there is no such file, or it is damaged, of another kind, or asks to run anything.
    """
    path = Path(path)
    with _one_line(path):
        file = _read(path, _layout(path))
    if strange := [name for name in file.tensors if not name.isprintable()]:
        raise UserError(f"{path}: found {len(strange)} tensors whose names are not text, expected names of parameters")
    return file


def read_stored_card(path: str | Path) -> ModelCard | None:
    """The model card in the header of a weight file, without reading any weights; None where it has none.

    Raises:
        UserError: as `read_weights`, for what shows in the header.
    """
    path = Path(path)
    with _one_line(path):
        if _layout(path) != "safetensors":
            return None
        with _safetensors(path) as file:
            return _card(file)


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turns whatever is wrong with a file into a `UserError`."""
    try:
        yield
    except UnreadableError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a weight file") from None


def _read(path: Path, layout: FileLayout | Literal["torch, before 1.6"]) -> WeightFile:
    if layout == "safetensors":
        return _read_safetensors(path)
    if layout == "paddle":
        tensors, state = read_paddle(path)
    else:
        tensors, state = read_torch_zip(path) if layout == "torch" else read_torch_legacy(path)
    return WeightFile(tensors, "paddle" if layout == "paddle" else "torch", state.source, dropped=state.dropped)


def _layout(path: Path) -> FileLayout | Literal["torch, before 1.6"]:
    """What the first bytes say; `UnreadableError` for anything that is not one of the four."""
    if not path.exists():
        raise UnreadableError("no such file")
    if not path.is_file():
        raise UnreadableError("found a folder or a device, expected a weight file; of a run folder, name its model.safetensors")
    with path.open("rb") as file:
        start = file.read(PEEK)
    if start.startswith(b"PK\x03\x04"):
        return "torch"
    if start.startswith(LEGACY_START):
        return "torch, before 1.6"
    if len(start) > 1 and start[0] == 0x80 and 2 <= start[1] <= 4:
        return "paddle"
    if start[8:9] == b"{":
        return "safetensors"
    raise UnreadableError(f"found {_describe(start)}, expected weights: .safetensors, a PyTorch .pth or a Paddle .pdparams")


def _describe(start: bytes) -> str:
    if not start:
        return "an empty file"
    for beginning, description in KNOWN_OTHERS.items():
        if start.lstrip().startswith(beginning):
            return description
    if start[257:262] == b"ustar":
        return "a tar archive (or a PyTorch file before 0.4, which cannot be read safely)"
    text = start.decode("utf-8", errors="replace")
    if all(character.isprintable() or character.isspace() for character in text.rstrip("\ufffd")):
        return f"text, beginning with {text[:40]!r}"
    return f"an unknown kind of file, beginning with the bytes {start[:8].hex(' ')}"


def _read_safetensors(path: Path) -> WeightFile:
    with _safetensors(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, as the file is no dictionary
        return WeightFile(tensors, "safetensors", "bare", _card(file))


@contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    """The file, of which only the header is read yet."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise UnreadableError(f"found a damaged .safetensors ({error})") from None


def _card(file: Any) -> ModelCard | None:
    text = (file.metadata() or {}).get(CARD_KEY)
    try:
        return ModelCard.from_json(text) if text else None
    except (UserError, RecursionError) as error:
        raise UnreadableError(str(error)) from None
