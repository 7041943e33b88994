"""How many pictures per second a core makes ready for training: our loader beside torchvision's.

    python benchmarks/loader.py DATA [--rounds 5]

Method: DATA has class folders, best of JPEG files, in itself or under train/. Each loader runs on one core, with one reading process, and
on all cores, with as many reading processes; the training process runs on the same cores and only takes batches of 32, which it makes the
model's input: float32, normalised, on the CPU. Pictures per second and core are pictures per second of processor time, that of all these
processes and of the system for them, from the file to the model's input; time in which others have the core does not count, so they hold
on a machine that is not quiet. Pictures per second by the clock stand beside them. Every round starts each loader anew, in turn, with
other random numbers; the first batches, until the reading processes run evenly, are not counted. Medians over the rounds stand in the
table with the smallest and largest; a ratio is that of two loaders within one round. All loaders run in a process that keeps freed memory,
as `foveate train` does. Linux alone, since a process must be bound to cores.

Loaders, at 224 px with a random resized crop (bilinear) and a random flip and nothing else:

- torchvision: ImageFolder with RandomResizedCrop, RandomHorizontalFlip, ToTensor, Normalize on Pillow's pictures, in DataLoader;
- torchvision, tensors: the same with its own decoder and its v2 transforms on 8-bit tensors;
- foveate: `stream_loader`, as `foveate train` runs it.

And ours with all augmentation: that of the published ImageNet trainings at 224 px, and that of the recipe small_set at its own size.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterable
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from statistics import median
from typing import Any

import torch
from record import head, write
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from foveate.card import Preprocessing
from foveate.data.examples import LabelledPictures
from foveate.data.folders import open_pictures
from foveate.data.loader import stream_loader
from foveate.data.order import TrainingStream
from foveate.data.pictures import PictureSet
from foveate.data.transforms import Augmentation, training_transform
from foveate.memory import keep_freed_memory
from foveate.recipes import load_recipe
from foveate.tasks.classify import augmentation
from foveate.tasks.settings import TrainSettings

BATCH = 32
SIDE = 224
PLAIN = Augmentation(interpolation="bilinear", rand_augment=0, color_jitter=0, erasing=0)
MEAN, STD = Preprocessing().mean, Preprocessing().std

Loader = Callable[[int, int, int], Iterable[Any]]  # steps, seed, reading processes -> batches, ready for the model


def ours(pictures: PictureSet, side: int, varied: Augmentation) -> Loader:
    def batches(steps: int, seed: int, workers: int) -> Iterable[Any]:
        examples = LabelledPictures(pictures, training_transform(Preprocessing((side, side), side), varied))
        for batch in stream_loader(examples, TrainingStream(len(pictures), BATCH, steps, seed), workers):
            yield examples.finish(batch, torch.device("cpu"))

    return batches


def theirs(folder: Path, transform: Callable[..., Any], **options: Any) -> Loader:
    def batches(steps: int, seed: int, workers: int) -> Iterable[Any]:
        torch.manual_seed(seed)
        pictures = ImageFolder(str(folder), transform, **options)
        assert len(pictures) >= steps * BATCH, f"expected {steps * BATCH} training pictures or more"
        return DataLoader(pictures, BATCH, shuffle=True, num_workers=workers, drop_last=True)

    return batches


def contestants(folder: Path, pictures: PictureSet) -> dict[str, tuple[int, Loader]]:
    """By name the side of their pictures, and the loader; "torchvision" is what the others are compared with."""
    plain = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    cut = [v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip()]
    tensors = v2.Compose([*cut, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    small_set = TrainSettings(**load_recipe("small_set"))
    assert small_set.img_size is not None
    return {
        "foveate": (SIDE, ours(pictures, SIDE, PLAIN)),
        "torchvision": (SIDE, theirs(folder, transforms.Compose(plain))),
        "torchvision, tensors": (SIDE, theirs(folder, tensors, loader=lambda path: decode_image(path, ImageReadMode.RGB))),
        "foveate, all augmentation": (SIDE, ours(pictures, SIDE, Augmentation())),
        "foveate, small_set": (small_set.img_size, ours(pictures, small_set.img_size, augmentation(small_set))),
    }


def processor_seconds() -> float:
    """Processor time that this process and its reading processes have used so far."""
    processes = ["self", *(str(child.pid) for child in active_children())]
    threads = [file for process in processes for file in Path("/proc", process).glob("task/*/schedstat")]
    return sum(int(file.read_text().split()[0]) for file in threads) / 1e9


def speed(loader: Loader, seed: int, cores: int, counted: int) -> tuple[float, float]:
    """Pictures per second of processor time, and by the clock, over `counted` batches after those on which the reading processes start."""
    start = 4 * cores + 2
    batches = iter(loader(start + counted + 3 * cores, seed, cores))
    for _ in islice(batches, start):
        pass
    used, began = processor_seconds(), time.perf_counter()
    for _ in islice(batches, counted):
        pass
    return counted * BATCH / (processor_seconds() - used), counted * BATCH / (time.perf_counter() - began)


def rows(measured: dict[tuple[str, int], list[tuple[float, float]]], sides: dict[str, int]) -> list[dict[str, Any]]:
    result = []
    for (name, cores), rounds in measured.items():
        per_core, by_clock = zip(*rounds, strict=True)
        ratios = [one / other for one, (other, _) in zip(per_core, measured["torchvision", cores], strict=True)]
        row = {"loader": name, "side": sides[name], "cores": cores, "rounds": [round(one, 1) for one in per_core]}
        row |= {"pictures_per_second_per_core": round(median(per_core), 1), "pictures_per_second_by_clock": round(median(by_clock), 1)}
        result.append(row | {"ratio": round(median(ratios), 3), "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)]})
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=12, help="counted in each measurement")
    given = parser.parse_args()
    folder = given.data / "train" if (given.data / "train").is_dir() else given.data
    pictures = open_pictures(folder, val_fraction=0).train
    assert pictures is not None
    keep_freed_memory()
    torch.set_num_threads(1)
    available = sorted(os.sched_getaffinity(0))
    loaders = contestants(folder, pictures)
    choices = [(name, cores) for cores in sorted({1, len(available)}) for name in loaders]
    measured: dict[tuple[str, int], list[tuple[float, float]]] = {choice: [] for choice in choices}
    for seed in range(given.rounds):
        for (name, cores), rounds in measured.items():
            os.sched_setaffinity(0, available[:cores])
            rounds.append(speed(loaders[name][1], seed, cores, given.batches))
            per_core, by_clock = rounds[-1]
            print(f"round {seed + 1}: {name} on {cores}: {per_core:.0f} per core, {by_clock:.0f} by the clock", flush=True)
    bytes_each = [path.stat().st_size for path in pictures.files]
    described = {"data": given.data.name, "pictures": len(pictures), "median_file_bytes": median(bytes_each), "batch": BATCH}
    write(
        "loader", {**head("benchmarks/loader.py"), **described, "rows": rows(measured, {name: side for name, (side, _) in loaders.items()})}
    )


if __name__ == "__main__":
    main()
