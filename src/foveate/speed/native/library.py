"""The C++ of this folder, compiled for this processor when first asked for.

Compiling takes some seconds with the system's C++ compiler; later processes load what was made (`native/kept_libraries.py`). Without a
compiler, or where PyTorch brings no GNU OpenMP (macOS, Windows), there are no libraries.
"""

import ctypes
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveate.speed.native.kept_libraries import load

FORMATS = {torch.float32: "float", torch.bfloat16: "Bfloat16"}
"""Number formats of the maps, as the C++ calls them: each has libraries of its own. Weights are float32, in bfloat16 but for those of
products."""

ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2}

LANES = 16
"""Channels of weights are filled up with zeros to whole groups of these, as in native/lanes.h."""

FOLDER = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared")

_logger = logging.getLogger(__name__)


def has_library(name: str, dtype: torch.dtype) -> bool:
    """Whether the file `name` of `native/` could be compiled here for maps in this number format; the first call does it."""
    return dtype in FORMATS and _compiled(name, FORMATS[dtype]) is not None


@lru_cache
def has_libraries(names: tuple[str, ...], dtype: torch.dtype) -> bool:
    """The same of several files, which are compiled side by side."""
    with ThreadPoolExecutor(len(names)) as threads:
        return all(threads.map(partial(has_library, dtype=dtype), names))


@lru_cache
def has_products(dtype: torch.dtype) -> bool:
    """Whether products of matrices in this number format can be native.

    Those in bfloat16 are where the processor multiplies pairs of its numbers, or where PyTorch has no library for them and its own are
    slow (AVX2 alone). Where there are tiles for them beside (AMX), PyTorch's products, which use these, are the faster ones.
    """
    if dtype != torch.bfloat16:
        return dtype == torch.float32
    pairs = torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
    return torch.cpu._is_avx2_supported() and (pairs or not _has_library_for_bfloat16())


def _has_library_for_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def function(library: str, name: str, dtype: torch.dtype) -> Any:
    """A function of a library that is there."""
    found = _compiled(library, FORMATS[dtype])
    assert found is not None, "callers ask has_library first"
    return getattr(found, name)


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where a tensor's numbers lie; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """Where several tensors' numbers lie, in an array."""
    return (ctypes.c_void_p * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


def rows_of(x: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """How many rows of numbers along the last axis, and how many numbers in each."""
    return (ctypes.c_int64 * 2)(x.numel() // x.shape[-1], x.shape[-1])


def find_compiler() -> list[str] | None:
    """The C++ compiler that `CXX` names, with its words, or the first of the usual ones that is there; none on Windows."""
    asked = shlex.split(os.environ.get("CXX", ""))
    names = [asked] if asked else [["g++"], ["clang++"], ["c++"]]
    return None if sys.platform == "win32" else next((name for name in names if shutil.which(name[0])), None)


@lru_cache
def _compiled(name: str, number: str) -> ctypes.CDLL | None:
    compiler, openmp = find_compiler(), pytorchs_openmp()
    if compiler is None or openmp is None:
        return None
    try:
        return load(FOLDER / f"{name}.cpp", compiler, [*FLAGS, f"-DNUMBER={number}", str(openmp)])
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()[:300]
        _logger.warning("native code (%s) could not be built with %s, models stay without it: %s", name, compiler[0], reason)
    return None


def pytorchs_openmp() -> Path | None:
    """The OpenMP library that PyTorch brought and has loaded: another would be a second set of threads for the same cores."""
    package = Path(torch.__file__).parent
    found = [*(package / "lib").glob("libgomp*.so*"), *(package.parent / "torch.libs").glob("libgomp*.so*")]
    return min(found, default=None)
