"""One model in one process, ready to be timed: built, warmed up, and asked for rounds of passes or training steps."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foveate.counting import count_macs, count_moved, count_parameters
from foveate.errors import UserError
from foveate.factory import create_model
from foveate.memory import keep_freed_memory
from foveate.speed.ceilings import synchronize
from foveate.speed.optimizing import optimize, optimize_for_training

Mode = Literal["infer", "train"]
Form = Literal["eager", "compiled", "optimized"]
Dtype = Literal["float32", "bfloat16", "float16"]

NUM_CLASSES = 1000
ROUND_SECONDS = 1.0
WARM_UP_PASSES = 3


@dataclass(frozen=True)
class Case:
    """What is measured.

    Args:
        model: a name of this project or of timm.
        form: "eager"; "compiled" by torch.compile; "optimized" by `foveate.optimize`, for training by `foveate.optimize_for_training`.
        mode: "infer" for forward passes without gradients, "train" for forward, cross-entropy, backward and AdamW.
        batch: pictures at once.
        size: height and width of the square picture in pixels.
        dtype: number format; the 16-bit ones by autocast, weights stay float32.
        device: "cpu", "cuda" ...
        threads: of the processor; 0 leaves PyTorch's choice.
        options: names and values of further arguments of `create_model`.
        name: what people call it; "": the model.
    """

    model: str
    form: Form = "eager"
    mode: Mode = "infer"
    batch: int = 16
    size: int = 224
    dtype: Dtype = "float32"
    device: str = "cpu"
    threads: int = 0
    options: tuple[tuple[str, Any], ...] = ()
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.model}, {self.form}"


@dataclass(frozen=True)
class Facts:
    """What holds for a case before any time is taken.

    Args:
        parameters: frozen tables included.
        macs: multiply-accumulates of a forward pass over one picture.
        moved: numbers that the operations of a forward pass over the whole batch read and write, see `count_moved`.
        steps: what optimising did.
    """

    parameters: int
    macs: int
    moved: int
    steps: tuple[str, ...] = ()


class Subject:
    """A warm model, in a process that keeps freed memory (`keep_freed_memory`), as the verbs of the command line do.

    Pictures and weights are laid out channels-last, which convolutions of every model here gain from or are indifferent to.

    Raises:
        UserError: for a model, size or device that does not exist.
    """

    def __init__(self, case: Case) -> None:
        keep_freed_memory()
        if case.threads:
            torch.set_num_threads(case.threads)
        self.case = case
        self.device = torch.device(case.device)
        self._before = _resident()
        torch.manual_seed(0)
        model = create_model(case.model, num_classes=NUM_CLASSES, img_size=case.size, **dict(case.options))
        channels = dict(case.options).get("in_chans", 3)
        size = case.size, case.size
        macs, moved = count_macs(model, size, channels), count_moved(model, size, channels, batch=case.batch)
        self.facts = Facts(count_parameters(model), macs, moved)
        self.model = self._formed(model.to(self.device, memory_format=torch.channels_last))  # type: ignore[call-overload]
        self.images = torch.randn(case.batch, channels, case.size, case.size, device=self.device).contiguous(
            memory_format=torch.channels_last
        )
        self.labels = torch.randint(0, NUM_CLASSES, (case.batch,), device=self.device)
        self._run = self._prepared()
        self._passes = self._warm_up()

    def _formed(self, model: nn.Module) -> nn.Module:
        model.train(self.case.mode == "train")
        if self.case.form == "optimized":
            steps: tuple[str, ...]
            if self.case.mode == "train":
                with self._autocast():
                    steps = optimize_for_training(model)
            else:
                model = optimize(model)
                steps = model.optimized  # type: ignore[assignment]
            self.facts = replace(self.facts, steps=steps)
        elif self.case.form == "compiled":
            model.compile()
        return model

    def _prepared(self) -> Callable[[], None]:
        if self.case.mode == "infer":
            return self._infer
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=self.device.type in ("cpu", "cuda"))
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.case.dtype == "float16")
        return self._train

    def _autocast(self) -> AbstractContextManager[None]:
        dtype = getattr(torch, self.case.dtype)
        return nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)

    @torch.inference_mode()
    def _infer(self) -> None:
        with self._autocast():
            self.model(self.images)

    def _train(self) -> None:
        with self._autocast():
            logits: Tensor = self.model(self.images)
            loss = nn.functional.cross_entropy(logits.float(), self.labels)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()

    def _warm_up(self) -> int:
        """Passes of a round of about a second; some run first, so that kernels are chosen and memory is there."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        for _ in range(WARM_UP_PASSES):
            seconds = self._timed()
        return max(1, math.ceil(ROUND_SECONDS / seconds))

    def _timed(self) -> float:
        synchronize(self.case.device)
        start = time.perf_counter()
        self._run()
        synchronize(self.case.device)
        return time.perf_counter() - start

    def round(self) -> list[float]:
        """Seconds of each pass of a round."""
        return [self._timed() for _ in range(self._passes)]

    def peak_bytes(self) -> int:
        """Largest memory so far: on CUDA what PyTorch gave out; otherwise the process's resident size beyond that before the model."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _resident() - self._before


def _resident() -> int:
    """The largest resident size of this process so far, in bytes."""
    if sys.platform == "win32":
        raise UserError("bench: peak memory is not measured on Windows")
    import resource  # noqa: PLC0415 - not on every system

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
