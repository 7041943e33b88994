"""Which picture is seen when: the order of a whole training, and of an evaluation, over all processes.

Everything random is a pure function of (seed, epoch). So neither the number of workers nor a stop and a new start changes an order.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from foveate.errors import UserError


class TrainingStream(Sampler[list[tuple[int, int]]]):
    """A whole training as one stream of batches, step `start_step` to `total_steps`; a batch is a list of (index, draw).

    Every epoch is a permutation of all pictures by (seed, epoch), cut into global batches of batch_size * world_size pictures, of which
    each process takes its share; the incomplete last one is left out. With `weights` an epoch is instead drawn with replacement, picture i
    with a probability proportional to weights[i] (`balanced_weights`).

    With `groups`, such as wide and tall, an epoch's global batches hold pictures of one group each, and come in random order; only what
    fills no batch of its own group is mixed.

    Args:
        num_pictures: in the training set.
        batch_size: pictures per step and process.
        total_steps: of the whole training, those before `start_step` included.
        seed: 0 or more.
        rank, world_size: this process and how many there are.
        start_step: steps already done; skipping them loads nothing.
        weights: one per picture, 0 or more.
        groups: one number per picture; not together with weights.

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
        groups: npt.NDArray[np.int64] | None = None,
    ) -> None:
        if seed < 0:
            raise UserError(f"found the seed {seed}, expected 0 or more: choose another")
        self.global_batch = batch_size * world_size
        if num_pictures < self.global_batch or batch_size < 1:
            asked = f"found a batch of {batch_size} on each of {world_size} processes for {num_pictures} training pictures"
            raise UserError(f"{asked}, expected from 1 to {num_pictures // world_size}: change --batch-size or --accumulate")
        self.num_pictures, self.batch_size, self.total_steps, self.seed = num_pictures, batch_size, total_steps, seed
        self.rank, self.world_size, self.start_step = rank, world_size, start_step
        self.chances = None if weights is None else np.asarray(weights, dtype=np.float64) / np.sum(weights)
        self.groups = groups

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
        if self.chances is not None:
            return generator.choice(self.num_pictures, self.steps_per_epoch * self.global_batch, p=self.chances)
        order = generator.permutation(self.num_pictures)
        return order if self.groups is None else self._grouped(order, generator)

    def _grouped(self, order: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """The permutation rearranged into batches of one group each; at its end, which is left out, pictures that filled none."""
        assert self.groups is not None
        members = [order[self.groups[order] == group] for group in np.unique(self.groups)]
        filled = [len(each) // self.global_batch * self.global_batch for each in members]
        rest = generator.permutation(np.concatenate([each[count:] for each, count in zip(members, filled, strict=True)]))
        used = len(rest) // self.global_batch * self.global_batch
        mixed = rest[:used][np.argsort(self.groups[rest[:used]], kind="stable")]
        batches = np.concatenate([*(each[:count] for each, count in zip(members, filled, strict=True)), mixed])
        batches = generator.permutation(batches.reshape(-1, self.global_batch)).reshape(-1)
        return np.concatenate([batches, rest[used:]])


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


class EqualSizeBatches(EvaluationBatches):
    """Batches of up to `batch_size` pictures that are equally large, so that none is padded to another's size; shared out as above.

    Args:
        sizes: (N, 2) what the pictures measure where they enter the model.
    """

    def __init__(self, sizes: npt.NDArray[np.int64], batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(len(sizes), batch_size, rank, world_size)
        order = np.lexsort((np.arange(len(sizes)), sizes[:, 0], sizes[:, 1]))
        breaks = np.flatnonzero((np.diff(sizes[order], axis=0) != 0).any(axis=1)) + 1
        runs = np.split(order, breaks)
        self.batches = [run[start : start + batch_size].tolist() for run in runs for start in range(0, len(run), batch_size)]

    def __len__(self) -> int:
        return len(range(self.rank, len(self.batches), self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches[self.rank :: self.world_size]


def balanced_weights(labels: Sequence[int]) -> npt.NDArray[np.float64]:
    """Weights for `TrainingStream` under which every class that has pictures is drawn equally often."""
    counts = np.bincount(np.asarray(labels, dtype=np.int64))
    return 1.0 / counts[np.asarray(labels, dtype=np.int64)]
