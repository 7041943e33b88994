"""PyTorch's own files: the zip of today (1.6 and later) and the string of pickles before it.

Both hold one pickle, in which a tensor is a call of `_rebuild_tensor_v2` on a storage named by key, and beside it the storages' bytes.
"""

import io
import math
import mmap
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveate.weights.pickles import ORDERED_DICT, PERSISTENT, Call, Name, UnreadableError, read_pickle
from foveate.weights.wrappings import State, unwrap

STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
PARAMETER = "torch._utils._rebuild_parameter"
# What stands beside the weights in a training script's checkpoint: arguments, metrics, optimiser options. Recorded, never looked at.
BESIDE = (
    "argparse.Namespace",
    "torch.Size",
    "torch.device",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "_codecs.encode",
)
ALLOWED = frozenset((*STORAGES, *TENSORS, PARAMETER, ORDERED_DICT, *BESIDE))

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x80\x02\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little")
LEGACY_VERSION = 1001

Fetch = Callable[[str], Tensor]  # key and so on of a storage -> its bytes, a uint8 vector


def read_torch_zip(path: Path) -> tuple[dict[str, Tensor], State]:
    """The weights in a file of `torch.save`, and where they stood; `UnreadableError` for anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = _records(archive, path.stat().st_size)
            tree, _ = read_pickle(io.BytesIO(archive.read(records["data.pkl"])), ALLOWED)
            if "byteorder" in records and archive.read(records["byteorder"]) != sys.byteorder.encode():
                raise UnreadableError(f"found weights of a machine whose byte order is not {sys.byteorder}")
            state = unwrap(tree, (*TENSORS, PARAMETER))
            return _build(state, lambda key: _read_record(archive, records.get(f"data/{key}")), path.stat().st_size), state
    except (zipfile.BadZipFile, EOFError, ValueError, struct.error, NotImplementedError) as error:  # all that zipfile raises on damage
        raise UnreadableError(f"found a damaged PyTorch file ({error})") from None


def _records(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The archive's entries by their name below its one folder, once it is sure that none claims more bytes than the file has."""
    entries = archive.infolist()
    records = {entry.filename.partition("/")[2]: entry for entry in entries}
    if "constants.pkl" in records:
        raise UnreadableError("found a TorchScript program, expected weights: save its state_dict() instead")
    if "data.pkl" not in records:
        raise UnreadableError("found a zip without data.pkl, expected one written by torch.save")
    if sum(entry.file_size for entry in entries) > size or any(entry.compress_type or entry.flag_bits & 1 for entry in entries):
        raise UnreadableError("found a zip with packed or lying entries, expected one written by torch.save, which packs nothing")
    return records


def _read_record(archive: zipfile.ZipFile, record: zipfile.ZipInfo | None) -> Tensor:
    if record is None:
        raise UnreadableError("found a tensor whose bytes are not in the file")
    return _bytes(archive.read(record))


def read_torch_legacy(path: Path) -> tuple[dict[str, Tensor], State]:
    """The weights in a file of `torch.save` before 1.6 (or `_use_new_zipfile_serialization=False`), and where they stood."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        magic, version, machine = (read_pickle(stream, ())[0] for _ in range(3))
        if magic != LEGACY_MAGIC or version != LEGACY_VERSION or not isinstance(machine, dict) or not machine.get("little_endian"):
            raise UnreadableError("found an old PyTorch file of an unknown version or byte order")
        tree, persistent_ids = read_pickle(stream, ALLOWED)
        keys, _ = read_pickle(stream, ())
        places = _places(stream, keys, dict(_storage(call) for call in persistent_ids))
        state = unwrap(tree, (*TENSORS, PARAMETER))
        return _build(state, lambda key: _copy(stream, places.get(key)), len(stream)), state


def _places(stream: mmap.mmap, keys: Any, dtypes: dict[str, torch.dtype]) -> dict[str, tuple[int, int]]:
    """First and last byte of each storage: they follow one another, each behind its number of elements."""
    places = {}
    for key in keys if isinstance(keys, list) else ():
        header = stream.read(8)
        if len(header) < 8 or key not in dtypes:
            raise UnreadableError("found an old PyTorch file that is cut off or damaged before its tensors end")
        start, length = stream.tell(), struct.unpack("<q", header)[0] * dtypes[key].itemsize
        if not 0 <= length <= len(stream) - start:
            raise UnreadableError(f"found a storage that claims {length} bytes where {len(stream) - start} are left")
        places[key] = (start, start + length)
        stream.seek(start + length)
    return places


def _copy(stream: mmap.mmap, place: tuple[int, int] | None) -> Tensor:
    if place is None:
        raise UnreadableError("found a tensor whose bytes are not in the file")
    return _bytes(stream[place[0] : place[1]])


def _bytes(data: bytes) -> Tensor:
    """A copy that may be written to, as a uint8 vector."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _storage(call: Any) -> tuple[str, torch.dtype]:
    """Key and element type of a recorded storage: ("storage", class, key, device, number of elements, and None in old files)."""
    entries = call.arguments[0] if isinstance(call, Call) and call.path == PERSISTENT else None
    match entries:
        case ("storage", Name(path), str(key), str(), int(), *view) if path in STORAGES and view in ([], [None]):
            return key, STORAGES[path]
    raise UnreadableError("found a tensor without a plain storage")


def _build(state: State, fetch: Fetch, limit: int) -> dict[str, Tensor]:
    """The recorded tensors, as views of their storages, each of which is read once."""
    storages: dict[str, Tensor] = {}
    tensors = {}
    for name, call in state.tensors.items():
        arguments = (call.arguments[0] if call.path == PARAMETER else call).arguments
        key, dtype = _storage(arguments[0])
        if key not in storages:
            storages[key] = fetch(key)
        tensors[name] = _view(name, storages[key], dtype, arguments[1:4], limit)
    return tensors


def _view(name: str, data: Tensor, dtype: torch.dtype, geometry: tuple[Any, ...], limit: int) -> Tensor:
    """A tensor over the bytes `data`, refused where it reaches beyond them, or repeats them to more than `limit` bytes."""
    match geometry:
        case (int(offset), tuple(size), tuple(stride)) if len(size) == len(stride):
            numbers = (offset, *size, *stride)
        case _:
            numbers = (-1,)
    if not all(isinstance(number, int) and 0 <= number <= limit for number in numbers):
        raise UnreadableError(f"found impossible sizes for {name[:80]!r}")
    reach = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else 0
    if reach * dtype.itemsize > data.numel() or math.prod(size) * dtype.itemsize > limit or data.numel() % dtype.itemsize:
        raise UnreadableError(f"found {name[:80]!r} of size {size}, but only {data.numel()} bytes for it")
    return data.view(dtype).as_strided(size, stride, offset)
