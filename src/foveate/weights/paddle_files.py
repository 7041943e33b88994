"""Paddle's `.pdparams`: a pickled dictionary of numpy arrays, whose matrices are stored (in x out) where PyTorch has (out x in).

The transposition is undone here, for every two-dimensional `*.weight` and for nothing else: square matrices need it too, and the
performer's random features, called `w`, do not.
"""

import math
import mmap
import pickle
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveate.weights.pickles import Call, Name, UnreadableError, read_pickle
from foveate.weights.wrappings import State, unwrap

RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")  # as numpy 1 and numpy 2 name it
ENCODE = "_codecs.encode"
ALLOWED = frozenset((*RECONSTRUCT, "numpy.ndarray", "numpy.dtype", ENCODE))
DTYPES = frozenset(("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"))
NAME_TABLE = "StructuredToParameterName@@"  # Paddle's names for its own use


def read_paddle(path: Path) -> tuple[dict[str, Tensor], State]:
    """The weights in a `.pdparams` of pickle protocol 2 to 4, matrices as PyTorch has them; `UnreadableError` for anything else."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        tree, _ = read_pickle(stream, ALLOWED)
    if isinstance(tree, dict):
        tree.pop(NAME_TABLE, None)
    state = unwrap(tree, RECONSTRUCT)
    arrays = {name: _array(name, call) for name, call in state.tensors.items()}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, state


def _array(name: str, call: Call) -> np.ndarray[Any, Any]:
    """The recorded array, copied; state = (version, shape, dtype, Fortran order, bytes)."""
    match call:
        case Call(arguments=(Name("numpy.ndarray"), *_), state=(int(), tuple(shape), Call("numpy.dtype") as dtype, fortran, data)):
            stored = _dtype(name, dtype)
            content = _bytes(data)
        case _:
            raise UnreadableError(f"found something other than a plain array under {name[:80]!r}")
    if not all(isinstance(side, int) and side >= 0 for side in shape) or math.prod(shape) * stored.itemsize != len(content):
        raise UnreadableError(f"found {name[:80]!r} of shape {shape} and {stored.itemsize} bytes a number, but {len(content)} bytes for it")
    array = np.frombuffer(content, stored).reshape(shape, order="F" if fortran else "C")
    return np.array(array.T if _is_matrix(name, array.ndim) else array, dtype=stored.newbyteorder("="), order="C")


def _dtype(name: str, call: Call) -> np.dtype[Any]:
    """A recorded dtype; state = (version, byte order, ...)."""
    match call:
        case Call(arguments=(str(code), *_), state=(int(), "<" | ">" | "|" | "=" as order, *_)) if code in DTYPES:
            return np.dtype(code).newbyteorder(order)
    raise UnreadableError(f"found an array of something other than plain numbers under {name[:80]!r}")


def _bytes(data: Any) -> bytes:
    """Bytes as protocols 3 and 4 store them, or as protocol 2 does: text and the codec that turns it into bytes."""
    match data:
        case bytes(content):
            return content
        case Call(path, (str(text), "latin1")) if path == ENCODE:
            return text.encode("latin1")
    raise UnreadableError("found an array without its bytes")


def _is_matrix(name: str, ndim: int) -> bool:
    return ndim == 2 and name.endswith(".weight")


def paddle_pickle(tensors: Mapping[str, Tensor]) -> Iterator[bytes]:
    """A `.pdparams` of protocol 4, piece by piece, with the names of numpy 1, which numpy 2 knows as well; CPU tensors that numpy can hold.

    Written by hand because `pickle` would write the names of the numpy at hand, which the numpy of a Paddle installation may not know.
    """
    yield pickle.PROTO + b"\x04" + pickle.EMPTY_DICT
    for name, tensor in tensors.items():
        turned = tensor.T if _is_matrix(name, tensor.ndim) else tensor
        array = np.asarray(turned.numpy(), order="C")
        yield _text(name) + _global("numpy.core.multiarray", "_reconstruct") + _global("numpy", "ndarray") + _whole(0) + pickle.TUPLE1
        yield pickle.SHORT_BINBYTES + b"\x01b" + pickle.TUPLE3 + pickle.REDUCE
        yield pickle.MARK + _whole(1) + pickle.MARK + b"".join(map(_whole, array.shape)) + pickle.TUPLE + _dtype_pickle(array.dtype)
        yield pickle.NEWFALSE + pickle.BINBYTES8 + struct.pack("<Q", array.nbytes)
        yield array.tobytes()
        yield pickle.TUPLE + pickle.BUILD + pickle.SETITEM
    yield pickle.STOP


def _dtype_pickle(dtype: np.dtype[Any]) -> bytes:
    made = _global("numpy", "dtype") + _text(dtype.str[1:]) + pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE3 + pickle.REDUCE
    state = _whole(3) + _text(dtype.str[0]) + 3 * pickle.NONE + _whole(-1) + _whole(-1) + _whole(0)
    return made + pickle.MARK + state + pickle.TUPLE + pickle.BUILD


def _text(text: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(text.encode())) + text.encode()


def _whole(number: int) -> bytes:
    return pickle.BININT + struct.pack("<i", number)


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()
