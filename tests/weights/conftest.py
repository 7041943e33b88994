"""Small weights in every layout, and the authors' golden ones."""

import importlib.util
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).resolve().parents[2] / "../shared/golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    if not GOLDEN.is_dir():
        pytest.skip(f"the authors' stored outputs are not at {GOLDEN}")
    return GOLDEN


@pytest.fixture(scope="session")
def fill(golden: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_fill", golden / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """A vector, a square and an oblong matrix, a matrix that is no weight, a convolution and a counter."""
    draw = np.random.default_rng(0).standard_normal
    shapes = {"norm.bias": (4,), "fc.weight": (3, 3), "head.weight": (2, 4), "attention1.w": (2, 4), "conv.weight": (2, 3, 2, 2)}
    return {name: draw(shape).astype("float32") for name, shape in shapes.items()} | {"count": np.array(7, "int64")}


@pytest.fixture
def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


@pytest.fixture
def numpy_pickle() -> Callable[..., bytes]:
    return write_numpy_pickle


def write_numpy_pickle(arrays: Mapping[str, np.ndarray], protocol: int, module: str, shape: tuple[int, ...] | None = None) -> bytes:
    """A pickled dictionary as numpy 1 (module "numpy.core.multiarray") or numpy 2 ("numpy._core.multiarray") writes it.

    Opcode by opcode, so that it does not depend on the numpy at hand. `shape` is written in place of each array's own.
    """

    def content(data: bytes) -> bytes:
        if protocol > 2:
            return pickle.BINBYTES + struct.pack("<I", len(data)) + data
        return named("_codecs", "encode") + text(data.decode("latin1")) + text("latin1") + pickle.TUPLE2 + pickle.REDUCE

    def text(value: str) -> bytes:
        return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()

    def named(where: str, what: str) -> bytes:
        return text(where) + text(what) + pickle.STACK_GLOBAL if protocol > 3 else pickle.GLOBAL + f"{where}\n{what}\n".encode()

    def number(value: int) -> bytes:
        whole = value.to_bytes(8, "little", signed=True)
        return pickle.LONG1 + b"\x08" + whole

    out = pickle.PROTO + bytes([protocol]) + pickle.EMPTY_DICT + pickle.MARK
    for name, array in arrays.items():
        out += text(name) + named(module, "_reconstruct") + named("numpy", "ndarray") + number(0) + pickle.TUPLE1 + content(b"b")
        out += pickle.TUPLE3 + pickle.REDUCE + pickle.MARK + number(1) + pickle.MARK
        out += b"".join(number(side) for side in (array.shape if shape is None else shape)) + pickle.TUPLE
        out += named("numpy", "dtype") + text(array.dtype.str[1:]) + pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE3 + pickle.REDUCE
        out += pickle.MARK + number(3) + text(array.dtype.str[0]) + 3 * pickle.NONE + number(-1) + number(-1) + number(0) + pickle.TUPLE
        out += pickle.BUILD + pickle.NEWFALSE + content(array.tobytes()) + pickle.TUPLE + pickle.BUILD
    return out + pickle.SETITEMS + pickle.STOP
