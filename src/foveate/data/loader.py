"""From a picture set to batches: who sees which picture when, and with which random numbers.

Everything random is a pure function of (seed, draw, index), where `draw` counts the pictures drawn since the training began and `index` is
the picture. So neither the number of workers nor a stop and a new start changes an order or a pixel.
"""

import os
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from foveate.data.pictures import PictureSet
from foveate.errors import UserError

Transform = Callable[[Image.Image], Tensor]
Batch = dict[str, Tensor]


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Python's and PyTorch's (CPU) random numbers follow from `key` alone inside; the caller's go on afterwards as if unused."""
    states = random.getstate(), torch.default_generator.get_state()
    random.seed("/".join(map(str, key)))
    torch.default_generator.manual_seed(random.getrandbits(63))  # torch.manual_seed would reach for GPUs too
    try:
        yield
    finally:
        random.setstate(states[0])
        torch.default_generator.set_state(states[1])


class TrainingStream(Sampler[list[tuple[int, int]]]):
    """A whole training as one stream of batches, step `start_step` to `total_steps`; a batch is a list of (index, draw).

    Every epoch is a permutation of all pictures by (seed, epoch), cut into global batches of batch_size * world_size pictures, of which
    each process takes its share; the incomplete last one is left out. With `weights` an epoch is instead drawn with replacement, picture i
    with a probability proportional to weights[i] (`balanced_weights`).

    Args:
        num_pictures: in the training set.
        batch_size: pictures per step and process.
        total_steps: of the whole training, those before `start_step` included.
        seed: 0 or more.
        rank, world_size: this process and how many there are.
        start_step: steps already done; skipping them loads nothing.
        weights: one per picture, 0 or more.

    Raises `UserError` where the set is smaller than one global batch.
    """

    def __init__(
        self,
        num_pictures: int,
        batch_size: int,
        total_steps: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
        weights: Sequence[float] | npt.NDArray[np.float64] | None = None,
    ) -> None:
        if seed < 0:
            raise UserError(f"found the seed {seed}, expected 0 or more: choose another")
        self.global_batch = batch_size * world_size
        if num_pictures < self.global_batch or batch_size < 1:
            asked = f"found a batch of {batch_size} on each of {world_size} processes for {num_pictures} training pictures"
            raise UserError(f"{asked}, expected a batch size from 1 to {num_pictures // world_size}: change it")
        self.num_pictures, self.batch_size, self.total_steps, self.seed = num_pictures, batch_size, total_steps, seed
        self.rank, self.world_size, self.start_step = rank, world_size, start_step
        self.chances = None if weights is None else np.asarray(weights, dtype=np.float64) / np.sum(weights)

    @property
    def steps_per_epoch(self) -> int:
        return self.num_pictures // self.global_batch

    @property
    def left_out(self) -> int:
        """Pictures per epoch that do not fill a last batch (others each epoch)."""
        return self.num_pictures % self.global_batch

    def __len__(self) -> int:
        """Batches that iterating yields."""
        return max(0, self.total_steps - self.start_step)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(self.start_step, self.total_steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = self._order(epoch)
            within = (step % self.steps_per_epoch) * self.global_batch + self.rank * self.batch_size
            draw = step * self.global_batch + self.rank * self.batch_size
            yield [(int(index), draw + place) for place, index in enumerate(order[within : within + self.batch_size])]

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        generator = np.random.default_rng((self.seed, epoch))
        if self.chances is None:
            return generator.permutation(self.num_pictures)
        return generator.choice(self.num_pictures, self.steps_per_epoch * self.global_batch, p=self.chances)


class EvaluationBatches(Sampler[list[int]]):
    """Batch j holds the pictures from j * batch_size on, and process r takes the batches j = r, r + world_size, ...

    No picture is seen twice or left out, and its batch never depends on the number of processes: per-picture results are identical.
    """

    def __init__(self, num_pictures: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1:
            raise UserError(f"found a batch size of {batch_size}, expected 1 or more: change it")
        self.num_pictures, self.batch_size, self.rank, self.world_size = num_pictures, batch_size, rank, world_size

    def _starts(self) -> range:
        return range(self.rank * self.batch_size, self.num_pictures, self.world_size * self.batch_size)

    def __len__(self) -> int:
        return len(self._starts())

    def __iter__(self) -> Iterator[list[int]]:
        for start in self._starts():
            yield list(range(start, min(start + self.batch_size, self.num_pictures)))


def balanced_weights(labels: Sequence[int]) -> npt.NDArray[np.float64]:
    """Weights for `TrainingStream` under which every class that has pictures is drawn equally often."""
    counts = np.bincount(np.asarray(labels, dtype=np.int64))
    return 1.0 / counts[np.asarray(labels, dtype=np.int64)]


class Item(NamedTuple):
    """Picture number `picture` on its way into a batch; `image` is missing where it is broken, and `broken` then says how."""

    image: Tensor | None
    label: int
    picture: int
    broken: str = ""


class TransformedPictures(Dataset[Item]):
    """Picture set and transform; keys are `index`, or (index, draw) where the transform draws random numbers from `seed`."""

    def __init__(self, pictures: PictureSet, transform: Transform, seed: int = 0) -> None:
        self.pictures, self.transform, self.seed = pictures, transform, seed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        if isinstance(key, int):
            return self._item(key)
        index, draw = key
        with seeded(self.seed, draw, index):
            return self._item(index)

    def _item(self, index: int) -> Item:
        label = self.pictures.labels[index]
        try:
            with self.pictures.open(index) as image:
                return Item(self.transform(image), label, index)
        except UserError as error:
            return Item(None, label, index, str(error))


class PictureLoader(DataLoader[Item]):
    """Yields batches dict(image (B, C, H, W) float32 channels-last, label (B,) int64, index (B,) int64).

    In training the place of a broken picture is taken by the next whole one of its batch; `replaced` counts and names them, and each is
    warned of once. In evaluation a broken picture is a `UserError`.
    """

    @cached_property
    def replaced(self) -> Counter[str]:
        """What was wrong with a picture, its name first -> how many times it was replaced."""
        return Counter()

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch, broken in super().__iter__():
            if batch is None:
                self._iterator = None  # ends the workers now: kept alive by this error's traceback they would end late and slowly
                raise UserError(broken[0])
            for problem in broken:
                if problem not in self.replaced:
                    warnings.warn(f"another picture takes its place in training: {problem}", stacklevel=2)
                self.replaced[problem] += 1
            yield batch


def training_loader(pictures: PictureSet, transform: Transform, stream: TrainingStream, num_workers: int | None = None) -> PictureLoader:
    """Batches of `stream`, one for each of its steps."""
    dataset = TransformedPictures(pictures, transform, stream.seed)
    return _loader(dataset, stream, num_workers, stream.world_size, replace_broken=True)


def evaluation_loader(
    pictures: PictureSet, transform: Transform, batch_size: int, rank: int = 0, world_size: int = 1, num_workers: int | None = None
) -> PictureLoader:
    """Batches of consecutive pictures, those of process `rank`."""
    batches = EvaluationBatches(len(pictures), batch_size, rank, world_size)
    return _loader(TransformedPictures(pictures, transform), batches, num_workers, world_size, replace_broken=False)


def default_num_workers(pictures: PictureSet, processes: int = 1) -> int:
    """Cores per process, at most 8; none for pictures in memory, which cost less than their way between processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if pictures.in_memory else max(1, min(8, cores // processes))


def _loader(
    dataset: TransformedPictures, batches: Sampler[Any], num_workers: int | None, processes: int, *, replace_broken: bool
) -> PictureLoader:
    workers = default_num_workers(dataset.pictures, processes) if num_workers is None else num_workers
    return PictureLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(_collate, replace_broken=replace_broken),
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        # a generator of its own, or each new iterator would draw from the training's random numbers
        generator=torch.Generator().manual_seed(0),
    )


def _collate(items: Sequence[Item], *, replace_broken: bool) -> tuple[Batch | None, list[str]]:
    broken = [item.broken for item in items if item.broken]
    whole = [item for item in items if not item.broken]
    if not whole or (broken and not replace_broken):
        return None, broken
    places = np.cumsum([not item.broken for item in items])  # a broken item's number of whole ones before it is the next one's place
    chosen = [item if not item.broken else whole[places[at] % len(whole)] for at, item in enumerate(items)]
    # stacked as (B, H, W, C): contiguous items, one copy, straight into the memory that workers share
    image = default_collate([item.image.permute(1, 2, 0) for item in chosen if item.image is not None]).permute(0, 3, 1, 2)
    label, index = (torch.tensor(values) for values in zip(*((item.label, item.picture) for item in chosen), strict=True))
    return {"image": image, "label": label, "index": index}, broken
