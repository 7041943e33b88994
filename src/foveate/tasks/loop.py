"""The training loop: one stream of steps that can be cut anywhere and goes on exactly where it was cut.

Nothing random is carried from one step to the next: before step n torch is seeded, and the mixing's generator made, from (seed, n,
process). So a checkpoint holds weights, average, optimiser and the position in the stream, no random states. Devices, processes,
precision and the checkpoint's form are Lightning Fabric's; the loop is our own since the Trainer's resuming within an epoch depends on
the place in its nested loops where the checkpoint was written.
"""

import copy
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed
from lightning.fabric import Fabric
from torch import nn

from foveate.heads.dense import DenseModel
from foveate.tasks.averaging import WeightAverage
from foveate.tasks.base import Batch, Forward, Task
from foveate.tasks.checkpoint import Checkpoint, Position
from foveate.tasks.interruption import Interruption
from foveate.tasks.loader_watch import LoaderWatch
from foveate.tasks.optimizer import freeze_backbone, make_optimizer, set_learning_rate, training_mode
from foveate.tasks.progress import Report
from foveate.tasks.schedule import make_schedule, progress
from foveate.tasks.settings import TrainSettings
from foveate.tasks.watch import first_non_finite, gather_numbers, stop_non_finite


@dataclass(frozen=True)
class Length:
    """How long a training is: weight updates in all, per epoch, and pictures per update over all processes."""

    steps: int
    steps_per_epoch: int
    pictures_per_update: int


class Training:
    """A model, its optimiser and its average on their way through the stream of batches.

    Args:
        fabric: launched; its strategy and precision wrap the model.
        model: changed in place; its learning rates and frozen parts are settled here.
        settings: of the training.
        length: see `Length`.
        file: the checkpoint that a killed training goes on from.
        report: what the user sees meanwhile.
    """

    def __init__(self, fabric: Fabric, model: nn.Module, settings: TrainSettings, length: Length, file: Path, report: Report) -> None:
        self.fabric, self.settings, self.length, self.report = fabric, settings, length, report
        self.sharded = settings.strategy == "fsdp"
        if settings.freeze_backbone:
            freeze_backbone(model)
        # sharding cuts weights as flat rows of numbers, which have no channels-last form
        layout = torch.preserve_format if self.sharded else torch.channels_last
        self.model = model.to(fabric.device, memory_format=layout)  # type: ignore[call-overload]
        self.average = WeightAverage(model, settings.ema_decay) if settings.ema_decay > 0 else None
        self.whole = copy.deepcopy(model) if self.sharded else model
        # fp16 rescales the gradients before they are clipped, which fused optimisers do not allow
        optimizer = make_optimizer(model, settings, fused=fabric.device.type in ("cpu", "cuda") and settings.precision != "fp16")
        self.wrapped, self.optimizer = fabric.setup(compiled(model) if settings.compile else model, optimizer)
        self.checkpoint = Checkpoint(file, fabric, self.wrapped, self.optimizer, self.average)
        self.schedule = make_schedule(settings, length.pictures_per_update)
        self.position = Position()
        self.watch = LoaderWatch(length.steps_per_epoch)
        self._start = time.monotonic()

    @property
    def progress(self) -> float:
        return progress(self.position.step, self.length.steps, self.position.minutes, self.settings.max_minutes)

    @property
    def finished(self) -> bool:
        return self.progress >= 1.0

    def run(self, task: Task, batches: Iterable[Batch]) -> None:
        """Train to the end of the schedule on the stream of batches from `position.step` on.

        Raises:
            KeyboardInterrupt: after a checkpoint where the user interrupted the training; with several processes at once.
        """
        if self.finished:
            return
        self._start = time.monotonic() - 60.0 * self.position.minutes
        training_mode(self.model, self.settings.freeze_backbone)
        with Interruption(held_back=self.fabric.world_size == 1) as interruption:
            self._follow(task, batches, interruption)
            if interruption.asked and not self.finished:
                self.save()
                raise KeyboardInterrupt(
                    f"step {self.position.step} is kept; go on with: foveate train --resume {self.checkpoint.file.parent}"
                )

    def _follow(self, task: Task, batches: Iterable[Batch], interruption: Interruption) -> None:
        """Step by step, up to the end or the user's interruption."""
        for batch in self.watch.timed(batches):
            self._step(task, batch)
            self._keep_time()
            if self.position.step % self.length.steps_per_epoch == 0 or self.finished:
                self._end_epoch(task)
            elif self.checkpoint.is_due(self.position, self.settings):
                self.save()
            if self.finished or interruption.asked:
                return

    def _keep_time(self) -> None:
        """Add the step that ends now to the epoch's times; tell the user, once, where pictures come too slowly."""
        waited, seconds = self.watch.end_step()
        self.position.waited += waited
        self.position.seconds += seconds
        share = self.watch.complaint()
        if share is not None:
            self.report.slow_pictures(share)

    def _minutes(self) -> float:
        """Minutes of training by this process's clock, those before a resume included."""
        return (time.monotonic() - self._start) / 60.0

    def _seed(self) -> np.random.SeedSequence:
        """Seed torch for the coming step on this process; the seed also for other generators."""
        seed = np.random.SeedSequence([self.settings.seed, self.position.step, self.fabric.global_rank])
        torch.manual_seed(int(seed.generate_state(1)[0]))
        return seed

    def _step(self, task: Task, batch: Batch) -> None:
        """One weight update."""
        seed = self._seed()
        rate = self.schedule.learning_rate(self.progress)
        set_learning_rate(self.optimizer, rate)
        batch = task.examples.finish(batch, self.fabric.device)
        loss = self._backward(task, task.parts(batch, self.settings.accumulate, np.random.default_rng(seed)))
        if self.settings.clip_grad > 0:
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=self.settings.clip_grad, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update()
        self.position.step += 1
        self.position.losses.append(loss)
        self.report.step(self.position.step, self.progress, loss, rate)

    def _backward(self, task: Task, parts: Sequence[Batch]) -> float:
        """Gradients of the mean loss over the parts and processes; the loss. Raises `UserError` everywhere where it is not finite."""
        losses = []
        for number, part in enumerate(parts, start=1):
            with self.fabric.no_backward_sync(self.wrapped, enabled=number < len(parts)):
                loss = task.loss(self.wrapped, part) / len(parts)
                self.fabric.backward(loss)
            losses.append(loss.detach())
        own = torch.stack(losses).sum().item()
        everyones = gather_numbers(self.fabric, own, self._minutes(), self.watch.waited)
        self.position.minutes = max(minutes for _, minutes, _ in everyones)
        self.watch.waited = max(waited for _, _, waited in everyones)
        mean = sum(loss for loss, _, _ in everyones) / len(everyones)
        if not math.isfinite(mean):
            self._explain(task, parts)
        return mean

    def _explain(self, task: Task, parts: Sequence[Batch]) -> NoReturn:
        """Run the same parts again with an eye on every module, and stop on every process.

        Joined blocks go through their layers then, which draw other numbers for dropout.
        """
        self._seed()
        forward = self.wrapped if self.sharded else self._direct(self.model)
        findings = [first_non_finite(self.model, partial(task.loss, forward, part)) for part in parts]
        images = torch.cat([part["image"] for part in parts])
        stop_non_finite(self.fabric, self.position.step, images, next(filter(None, findings), None))

    def _end_epoch(self, task: Task) -> None:
        """Evaluate where it is due; write the epoch's row and, after an evaluation, a checkpoint."""
        place = self.position
        epoch = place.step / self.length.steps_per_epoch
        row = {
            "epoch": round(epoch, 3),
            "step": place.step,
            "learning_rate": self.optimizer.param_groups[0]["lr"] / self.optimizer.param_groups[0]["lr_scale"],
            "train_loss": math.fsum(place.losses) / len(place.losses),
            "minutes": place.minutes,
            "images_per_second": len(place.losses) * self.length.pictures_per_update / (60.0 * (place.minutes - place.epoch_began)),
            "loader_share": place.waited / place.seconds,
        }
        evaluated = self.finished or round(epoch) % self.settings.evaluate_every == 0
        if evaluated:
            row |= self.evaluate(task)
        place.rows.append(row)
        place.losses.clear()
        place.seconds = place.waited = 0.0
        place.epoch_began = self._minutes()
        self.report.rows(place.rows)
        if evaluated or self.checkpoint.is_due(self.position, self.settings):
            self.save()

    def evaluate(self, task: Task) -> dict[str, float]:
        """The task's figures under `val_`, and under `averaged_val_` those of the averaged weights."""
        figures = {f"val_{name}": value for name, value in task.results(self.fabric, self.forward(averaged=False)).figures().items()}
        if self.average is not None:
            averaged = task.results(self.fabric, self.forward(averaged=True)).figures()
            figures |= {f"averaged_val_{name}": value for name, value in averaged.items()}
        training_mode(self.model, self.settings.freeze_backbone)
        return figures

    def forward(self, *, averaged: bool) -> Forward:
        """The plain or the averaged model for evaluation, alike on every process, without gradients' and processes' wrapping."""
        model = self.average.module if self.average is not None and averaged else self.whole
        if self.sharded:
            self.whole.load_state_dict(whole_weights(self.wrapped))
        if self.fabric.world_size > 1:
            for buffer in model.buffers():  # running statistics belong to each process: those of the first count
                torch.distributed.broadcast(buffer, src=0)
        return self._direct(model.eval())

    def shipped(self) -> nn.Module:
        """The model that training leaves: the averaged weights where there are any, otherwise the last ones."""
        return self.average.module if self.average is not None else self.whole

    def _direct(self, model: nn.Module) -> Forward:
        def forward(*inputs: Any) -> Any:
            with self.fabric.autocast():
                return model(*inputs)

        return forward

    def save(self) -> None:
        """Write a checkpoint of where the training stands."""
        self.checkpoint.write(self.position)

    def resume(self) -> None:
        """Go to where the run folder's checkpoint stands. `UserError` where it was written by another number of processes."""
        self.position = self.checkpoint.read()


def compiled(model: nn.Module) -> nn.Module:
    """The model under torch.compile; of a detector or segmenter the backbone, since the shapes behind it follow the data."""
    if isinstance(model, DenseModel):
        model.compile_backbone()
        return model
    whole: Any = torch.compile(model)
    return whole


def whole_weights(sharded: Any) -> dict[str, Any]:
    """All weights of a model under FSDP, on every process."""
    from torch.distributed.fsdp import FullStateDictConfig, StateDictType  # noqa: PLC0415 - only where it is used: slow to import
    from torch.distributed.fsdp import FullyShardedDataParallel as Sharded  # noqa: PLC0415

    module: nn.Module = sharded._forward_module
    with Sharded.state_dict_type(module, StateDictType.FULL_STATE_DICT, FullStateDictConfig(rank0_only=False)):
        return module.state_dict()
