"""The C++ of `native/`, compiled for this processor when first asked for, and its two functions on tensors.

A block of FViT reads and writes its map some twenty times, and what it does on the way between the matrix products (depthwise convolutions,
layer norms, GELU, sums) is bound by memory. The two chains here do it in one pass each. Compiling takes a few seconds with the system's C++
compiler, into a folder that is gone at once; nothing is kept between processes. Without a compiler, or where PyTorch brings no GNU OpenMP
(macOS, Windows), there are no chains.
"""

import ctypes
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

LANES = 16
"""Channels of weights are filled up with zeros to whole groups of these, as in native/lanes.h."""

FORMATS = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
"""Number formats of the maps; weights are always float32."""

ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2}

SOURCE = Path(__file__).parent / "native" / "chains.cpp"
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared")
SECONDS = 120
"""After which a compiler is given up."""

_logger = logging.getLogger(__name__)


class MixingWeights(NamedTuple):
    """What `mix` needs beside the map; S is C filled up to whole groups of `LANES`, every vector (S,)."""

    position_taps: Tensor
    """(9, S), the identity in the centre's row."""
    position_bias: Tensor
    gain: Tensor
    shift: Tensor
    taps: Tensor
    """(k * k, S)."""
    bias: Tensor
    later_bias: Tensor
    side: int
    activation: str
    released: bool
    """Whether the filter's response is handed on in the order of the authors' code, see `layers/gabor.py`."""
    eps: tuple[float, float]
    """Of the first norm, whose gain and shift these are, and of the second, which has none."""


class FilteringWeights(NamedTuple):
    """What `filter_groups` needs beside the hidden map; S is a group's width filled up to whole groups of `LANES`."""

    entering: Tensor
    """(groups, S): the bias of the linear layer before."""
    taps: Tensor
    """(filters, 9, S); groups before the last `filters` pass with their bias alone."""
    bias: Tensor
    """(filters, S)."""


def mix(x_bhwc: Tensor, weights: MixingWeights) -> tuple[Tensor, Tensor]:
    """`p = position(x); r = p + activation(filter(gain norm(p) + shift))`: the maps `r + later_bias` and `norm(r)`, (B, H, W, C) each.

    `x_bhwc` is contiguous, on the processor, in one of `FORMATS`; so are the maps.
    """
    y, normal = torch.empty_like(x_bhwc), torch.empty_like(x_bhwc)
    stride = weights.gain.shape[-1]
    sizes = (ctypes.c_int64 * 8)(*x_bhwc.shape, stride, weights.side, ACTIVATIONS[weights.activation], weights.released)
    pointers = (ctypes.c_void_p * 7)(*(tensor.data_ptr() for tensor in weights[:7]))
    call = getattr(_library(), f"mix_{FORMATS[x_bhwc.dtype]}")
    call(_pointer(x_bhwc), _pointer(y), _pointer(normal), sizes, pointers, (ctypes.c_float * 2)(*weights.eps), torch.get_num_threads())
    return y, normal


def filter_groups(hidden_bhwc: Tensor, weights: FilteringWeights) -> None:
    """`y1 = GELU(dw1(x1 + b1)), yi = GELU(dwi(xi + bi + y(i-1)))` in the place of the groups xi of hidden channels.

    `hidden_bhwc`, (B, H, W, groups * width), is contiguous, on the processor, in one of `FORMATS`.
    """
    groups, filters = len(weights.entering), len(weights.taps)
    sizes = (ctypes.c_int64 * 6)(*hidden_bhwc.shape, groups, groups - filters)
    call = getattr(_library(), f"filter_{FORMATS[hidden_bhwc.dtype]}")
    call(_pointer(hidden_bhwc), sizes, *map(_pointer, weights), torch.get_num_threads())


def can_join() -> bool:
    """Whether the chains could be compiled here; the first call does it."""
    return _compiled() is not None


def find_compiler() -> list[str] | None:
    """The C++ compiler that `CXX` names, with its words, or the first of the usual ones that is there; none on Windows."""
    asked = shlex.split(os.environ.get("CXX", ""))
    names = [asked] if asked else [["g++"], ["clang++"], ["c++"]]
    return None if sys.platform == "win32" else next((name for name in names if shutil.which(name[0])), None)


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _library() -> Any:
    library = _compiled()
    assert library is not None, "callers ask can_join first"
    return library


@lru_cache(maxsize=1)
def _compiled() -> ctypes.CDLL | None:
    compiler, openmp = find_compiler(), pytorchs_openmp()
    if compiler is None or openmp is None:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "chains.so"
            command = [*compiler, *FLAGS, str(SOURCE), str(openmp), "-o", str(library)]
            subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=SECONDS)
            return ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()[:300]
        _logger.warning("FViT's joined chains could not be built with %s, models stay without them: %s", compiler[0], reason)
    return None


def pytorchs_openmp() -> Path | None:
    """The OpenMP library that PyTorch brought and has loaded: another would be a second set of threads for the same cores."""
    package = Path(torch.__file__).parent
    found = [*(package / "lib").glob("libgomp*.so*"), *(package.parent / "torch.libs").glob("libgomp*.so*")]
    return min(found, default=None)
