"""From examples to batches: reading processes, random numbers by picture, and what becomes of a broken picture.

Everything random is a pure function of (seed, draw, index), where `draw` counts the pictures drawn since the training began and `index` is
the picture. So neither the number of workers nor a stop and a new start changes a pixel.
"""

import random
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from foveate.cores import reading_processes
from foveate.data.examples import Examples, LabelledPictures
from foveate.data.order import EqualSizeBatches, EvaluationBatches, TrainingStream
from foveate.data.pictures import PictureSet, StoredPictures
from foveate.data.transforms import Batch, Example, Transform
from foveate.errors import UserError

Key = int | tuple[int, int]

# Bytes. A tensor goes from process to process in shared memory, for which both sides first connect; a small one is copied sooner.
SENT_AS_ARRAYS = 1 << 16


@contextmanager
def preserved_random_numbers() -> Iterator[None]:
    """Python's and PyTorch's (CPU) random numbers go on afterwards as if none had been used inside."""
    states = random.getstate(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        torch.default_generator.set_state(states[1])


def seed_random_numbers(*key: int) -> None:
    """Python's and PyTorch's (CPU) next random numbers follow from `key` alone."""
    random.seed("/".join(map(str, key)))
    torch.default_generator.manual_seed(random.getrandbits(63))  # torch.manual_seed would reach for GPUs too


class Item(NamedTuple):
    """Picture number `picture` on its way into a batch; `example` is missing where it is broken, and `broken` then says how."""

    example: Example | None
    picture: int
    broken: str = ""


class KeyedExamples(Dataset[Item]):
    """Examples by key: `index`, or (index, draw) where the transform draws random numbers from `seed`."""

    def __init__(self, examples: Examples, seed: int = 0) -> None:
        self.examples, self.seed = examples, seed

    def __len__(self) -> int:
        return len(self.examples.pictures)

    def __getitem__(self, key: Key) -> Item:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[Item]:
        """The items of a batch, as torch asks for them. Random states are put back once for all, which takes longer than to seed."""
        with preserved_random_numbers():
            return [self._item(key) for key in keys]

    def _item(self, key: Key) -> Item:
        index, *draw = (key,) if isinstance(key, int) else key
        if draw:
            seed_random_numbers(self.seed, *draw, index)
        try:
            return Item(self.examples(index), index)
        except UserError as error:
            return Item(None, index, str(error))


class PictureLoader(DataLoader[Item]):
    """Yields the batches that the examples collate to, with index (B,) int64, the pictures' places in their set. `Examples.finish` makes
    them the model's input.

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
            yield {name: torch.as_tensor(value) for name, value in batch.items()}


def training_loader(pictures: PictureSet, transform: Transform, stream: TrainingStream, num_workers: int | None = None) -> PictureLoader:
    """Batches of `stream`, one for each of its steps."""
    return stream_loader(LabelledPictures(pictures, transform), stream, num_workers)


def stream_loader(examples: Examples, stream: TrainingStream, num_workers: int | None = None) -> PictureLoader:
    """Batches of `stream`, one for each of its steps, of any kind of examples."""
    return _loader(KeyedExamples(examples, stream.seed), stream, num_workers, stream.world_size, replace_broken=True)


def evaluation_loader(
    pictures: PictureSet, transform: Transform, batch_size: int, rank: int = 0, world_size: int = 1, num_workers: int | None = None
) -> PictureLoader:
    """Batches of consecutive pictures, those of process `rank`."""
    batches = EvaluationBatches(len(pictures), batch_size, rank, world_size)
    return _loader(KeyedExamples(LabelledPictures(pictures, transform)), batches, num_workers, world_size, replace_broken=False)


def equal_size_loader(
    examples: Examples,
    sizes: npt.NDArray[np.int64],
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int | None = None,
) -> PictureLoader:
    """Batches of pictures of equal `sizes` (N, 2), those of process `rank`."""
    batches = EqualSizeBatches(sizes, batch_size, rank, world_size)
    return _loader(KeyedExamples(examples), batches, num_workers, world_size, replace_broken=False)


def default_num_workers(pictures: StoredPictures, processes: int = 1) -> int:
    """Cores per process, at most 8; none for pictures in memory, which cost less than their way between processes."""
    return 0 if pictures.in_memory else reading_processes(processes)


def _loader(
    dataset: KeyedExamples, batches: Sampler[Any], num_workers: int | None, processes: int, *, replace_broken: bool
) -> PictureLoader:
    workers = default_num_workers(dataset.examples.pictures, processes) if num_workers is None else num_workers
    return PictureLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(_collate, collate=dataset.examples.collate, replace_broken=replace_broken),
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=_leave_interrupts_to_the_parent if workers else None,
        # a generator of its own, or each new iterator would draw from the training's random numbers
        generator=torch.Generator().manual_seed(0),
    )


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; a reading one ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _collate(
    items: Sequence[Item], *, collate: Callable[[Sequence[Example]], Batch], replace_broken: bool
) -> tuple[dict[str, Tensor | npt.NDArray[Any]] | None, list[str]]:
    """What a reading process sends: a batch, small tensors as arrays, and what was wrong with its broken pictures."""
    broken = [item.broken for item in items if item.broken]
    whole = [item for item in items if not item.broken]
    if not whole or (broken and not replace_broken):
        return None, broken
    places = np.cumsum([not item.broken for item in items])  # a broken item's number of whole ones before it is the next one's place
    chosen = [item if not item.broken else whole[places[at] % len(whole)] for at, item in enumerate(items)]
    batch = collate([item.example for item in chosen if item.example is not None])
    batch["index"] = torch.tensor([item.picture for item in chosen])
    # but not pictures of any size, whose strides a copy would not keep
    small = {name: value.numpy() for name, value in batch.items() if value.nbytes <= SENT_AS_ARRAYS and value.is_contiguous()}
    return {**batch, **small}, broken
