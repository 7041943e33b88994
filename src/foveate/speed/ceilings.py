"""What the machine can do at most: matrix products per second and bytes copied per second, measured."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from foveate.layers.products import linear_product

MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**30}
REPEATS = 5


@dataclass(frozen=True)
class Ceilings:
    """Multiply-accumulates per second of a large square linear layer by the faster library, bytes moved per second by a large copy."""

    macs_per_second: float
    bytes_per_second: float


def measure_ceilings(dtype: str, device: str) -> Ceilings:
    """The best of a few tries, in `dtype` ("float32", "bfloat16", "float16") on `device`."""
    kind, number_format = torch.device(device).type, getattr(torch, dtype)
    side = MATRIX_SIDE.get(kind, MATRIX_SIDE["cpu"])
    a, b = (torch.randn(side, side, device=device).to(number_format) for _ in range(2))
    source = torch.ones(COPIED_BYTES.get(kind, COPIED_BYTES["cpu"]), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        multiplying = _best_seconds(lambda: linear_product(a, b), device)
        copy = _best_seconds(lambda: target.copy_(source), device)
    return Ceilings(side**3 / multiplying, 2 * source.numel() / copy)


def best(ceilings: list[Ceilings]) -> Ceilings:
    """The higher of each figure over several measurements."""
    return Ceilings(max(one.macs_per_second for one in ceilings), max(one.bytes_per_second for one in ceilings))


def _best_seconds(run: Callable[[], object], device: str) -> float:
    def timed() -> float:
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        return time.perf_counter() - start

    return min(timed() for _ in range(REPEATS))


def synchronize(device: str) -> None:
    """Wait until the device has done all that was asked of it; a processor always has."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(torch.device(device))
