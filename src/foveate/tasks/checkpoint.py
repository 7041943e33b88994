"""What a training keeps on disk to go on from, and how it gets there whole."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from torch import nn

from foveate.errors import UserError
from foveate.tasks.averaging import WeightAverage
from foveate.tasks.settings import TrainSettings


@dataclass
class Position:
    """Where a training stands: everything beside tensors that a checkpoint has to hold.

    Args:
        step: weight updates done.
        minutes: of training so far, evaluations included.
        epoch_began: in these minutes.
        seconds: that the epoch's steps took, without evaluations and checkpoints.
        waited: how many of them were spent waiting for pictures.
        losses: of the epoch's steps.
        rows: of the metrics, one per epoch.
    """

    step: int = 0
    minutes: float = 0.0
    epoch_began: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    losses: list[float] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)


class Checkpoint:
    """The file that a cut training goes on from: weights, average, optimiser, scale of fp16, position; no random states.

    Args:
        file: where it lies.
        fabric: launched; it writes and reads, on every process.
        model, optimizer: as `fabric.setup` gave them.
        average: of the weights, where there is one.
    """

    def __init__(self, file: Path, fabric: Fabric, model: nn.Module, optimizer: Any, average: WeightAverage | None) -> None:
        self.file, self.fabric, self.average = file, fabric, average
        self._parts = {"model": model, "optimizer": optimizer}
        self._minutes = 0.0

    def is_due(self, position: Position, settings: TrainSettings) -> bool:
        """Whether it is time for another one, by the steps or the minutes between two of them."""
        every, minutes = settings.checkpoint_every_steps, settings.checkpoint_minutes
        by_steps = every > 0 and position.step % every == 0
        return by_steps or 0 < minutes <= position.minutes - self._minutes

    def write(self, position: Position) -> None:
        """Write under a temporary name and rename: a kill at any moment leaves a whole file."""
        draft = self.file.with_suffix(".draft")
        state = {
            **self._parts,
            "average": self.average.state_dict() if self.average is not None else {},
            "precision": self.fabric.strategy.precision.state_dict(),
            "position": asdict(position),
            "processes": self.fabric.world_size,
        }
        self.fabric.save(draft, state)
        if self.fabric.is_global_zero:
            draft.replace(self.file)
        self.fabric.barrier()
        self._minutes = position.minutes

    def read(self) -> Position:
        """Load model, optimiser and average; where the training stood. `UserError` where another number of processes wrote the file."""
        rest = self.fabric.load(self.file, self._parts, strict=False, weights_only=True)
        if rest["processes"] != self.fabric.world_size:
            raise UserError(
                f"{self.file}: written by {rest['processes']} processes, found {self.fabric.world_size} now, which would draw "
                "other batches; resume with the same --devices and --nodes"
            )
        if self.average is not None:
            self.average.load_state_dict(rest["average"])
        self.fabric.strategy.precision.load_state_dict(rest["precision"])
        position = Position(**rest["position"])
        position.epoch_began = min(position.epoch_began, position.minutes)  # the clock stood still from the checkpoint on
        self._minutes = position.minutes
        return position
