"""What detection costs: a training step of RetinaNet at COCO's size, and how time and memory of backbones grow with the picture.

    python benchmarks/dense_cost.py step [--height 800 --width 1333]
    python benchmarks/dense_cost.py growth

Method: every measurement runs in a process of its own, so that its peak memory (the largest resident size that the system saw, less
that before the model was made) is its own. Models take turns, round after round; the medians of times stand in the table with the
smallest and largest. `step`: forward, backward and AdamW on one picture of that size with 16 boxes, float32, as training does it.
`growth`: the four maps for dense prediction of one picture without gradients, float32, 224 to 1024 px square. A model that needs more
than the machine's memory has no row; `step` then takes the next smaller size for all.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from record import head, write

from foveate.heads.create import create_dense
from foveate.plots.speed import growth

STEP_MODELS = ("fvit_small", "resnet50")
SIZES = ((800, 1333), (640, 1066), (480, 800), (320, 533))
GROWTH_MODELS = ("fvit_small", "t2t_vit_14", "deit_small_patch16_224")
SIDES = (224, 320, 448, 640, 832, 1024)
ROUNDS = 3
MEMORY_LIMIT = 20 * 2**30


def resident() -> int:
    """The largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def step(model: str, height: int, width: int) -> dict[str, Any]:
    """Seconds of two training steps after one to warm up, and peak memory."""
    before = resident()
    detector, _ = create_dense(model, "retinanet", 80)
    detector.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(detector.parameters(), 1e-4, weight_decay=0.05, fused=True)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, height, width, generator=generator)
    corner = torch.rand(16, 2, generator=generator) * torch.tensor([width - 130, height - 130])
    side = torch.randint(20, 130, (16, 2), generator=generator)
    target = {"boxes": torch.cat([corner, corner + side], dim=1), "labels": torch.randint(0, 80, (16,), generator=generator)}
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        torch.stack(list(detector(image, None, [target]).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[1:], "peak_bytes": resident() - before}


@torch.inference_mode()
def forward(model: str, side: int) -> dict[str, Any]:
    """Seconds of some forward passes of the backbone after one to warm up, and peak memory."""
    before = resident()
    backbone = create_dense(model, "semantic_fpn", 2)[0].eval().backbone.to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(1 + max(2, round(1024 / side))):
        start = time.perf_counter()
        backbone(image)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[1:], "peak_bytes": resident() - before}


def measured(*arguments: object) -> dict[str, Any] | None:
    """One measurement in a process of its own; None where it ran out of memory."""
    done = subprocess.run([sys.executable, __file__, "one", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        if done.returncode < 0 or any(sign in done.stderr for sign in ("MemoryError", "allocate memory", "enough memory")):
            return None
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def rounds(kind: str, cases: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], dict[str, Any] | None]:
    """Every case once a round, so that all see the same machine; times and memory over the rounds."""
    found: dict[tuple[Any, ...], list[dict[str, Any] | None]] = {case: [] for case in cases}
    for _ in range(ROUNDS):
        for case in cases:
            if None not in found[case]:
                found[case].append(measured(kind, *case))
    return {case: None if None in values else summary([value for value in values if value]) for case, values in found.items()}


def summary(values: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = [second for value in values for second in value["seconds"]]
    return {
        "seconds": median(seconds),
        "seconds_range": [min(seconds), max(seconds)],
        "peak_mib": round(median(value["peak_bytes"] for value in values) / 2**20),
    }


def measure_step(sizes: list[tuple[int, int]]) -> None:
    for height, width in sizes:
        found = rounds("step", [(model, height, width) for model in STEP_MODELS])
        if all(found.values()):
            rows = [{"model": model, "height": height, "width": width, **(row or {})} for (model, *_), row in found.items()]
            write("retinanet_step", {**head("benchmarks/dense_cost.py step"), "rows": rows})
            print(json.dumps(rows, indent=1))
            return
        print(f"{height} x {width}: more than {MEMORY_LIMIT / 2**30:.0f} GiB", file=sys.stderr)


def measure_growth() -> None:
    found = rounds("growth", [(model, side) for side in SIDES for model in GROWTH_MODELS])
    rows = [{"model": model, "side": side, **row} for (model, side), row in found.items() if row]
    write("growth", {**head("benchmarks/dense_cost.py growth"), "rows": rows})
    growth(rows, Path(__file__).resolve().parents[1] / "docs" / "images" / "growth.png")
    print(json.dumps(rows, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("step", "growth", "one"))
    parser.add_argument("case", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    given = parser.parse_args()
    if given.what == "one":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        kind, model, *numbers = given.case
        print(json.dumps({"step": step, "growth": forward}[kind](model, *map(int, numbers))))
    elif given.what == "step":
        measure_step([(given.height, given.width)] if given.height else list(SIZES))
    else:
        measure_growth()


if __name__ == "__main__":
    main()
