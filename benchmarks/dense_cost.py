"""What detection costs: a training step of RetinaNet at COCO's size.

    python benchmarks/dense_cost.py [--height 800 --width 1333]

Method: every measurement runs in a process of its own, so that its peak memory (the largest resident size that the system saw, less
that before the model was made) is its own. Models take turns, round after round; the medians of times stand in the table with the
smallest and largest. A step is forward, backward and AdamW on one picture of that size with 16 boxes, float32, as training does it.
Where a model needs more than the machine's memory, the next smaller size is taken for all.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

import torch
from record import head, write

from foveate.heads.create import create_dense

MODELS = ("fvit_small", "resnet50")
SIZES = ((800, 1333), (640, 1066), (480, 800), (320, 533))
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


def measured(*arguments: object) -> dict[str, Any] | None:
    """One measurement in a process of its own; None where it ran out of memory."""
    done = subprocess.run([sys.executable, __file__, "one", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        if done.returncode < 0 or any(sign in done.stderr for sign in ("MemoryError", "allocate memory", "enough memory")):
            return None
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def rounds(cases: list[tuple[str, int, int]]) -> dict[tuple[str, int, int], dict[str, Any] | None]:
    """Every case once a round, so that all see the same machine; times and memory over the rounds."""
    found: dict[tuple[str, int, int], list[dict[str, Any] | None]] = {case: [] for case in cases}
    for _ in range(ROUNDS):
        for case in cases:
            if None not in found[case]:
                found[case].append(measured(*case))
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
        found = rounds([(model, height, width) for model in MODELS])
        if all(found.values()):
            rows = [{"model": model, "height": height, "width": width, **(row or {})} for (model, *_), row in found.items()]
            write("retinanet_step", {**head("benchmarks/dense_cost.py"), "rows": rows})
            print(json.dumps(rows, indent=1))
            return
        print(f"{height} x {width}: more than {MEMORY_LIMIT / 2**30:.0f} GiB", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    given = parser.parse_args()
    if given.one:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        _, model, height, width = given.one
        print(json.dumps(step(model, int(height), int(width))))
    else:
        measure_step([(given.height, given.width)] if given.height else list(SIZES))


if __name__ == "__main__":
    main()
