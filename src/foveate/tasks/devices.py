"""Where a task runs: device, processes and number format, by Lightning Fabric."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
import torch.multiprocessing as processes
from lightning.fabric import Fabric
from lightning.fabric.strategies import FSDPStrategy, Strategy
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from foveate.errors import UserError
from foveate.tasks.settings import Precision

Result = TypeVar("Result")
FABRIC_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

# Here and not in a function, as started processes announce themselves before they call one of ours.
for _name in ("lightning.fabric", "lightning.pytorch"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True)
class Devices:
    """What a run is given to compute with; the fields are those of `TrainSettings`."""

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    precision: Precision = "auto"

    def resolved_precision(self) -> Precision:
        """The number format, fp32, bf16 or fp16: "auto" is bf16 on CUDA devices that compute in it, fp32 elsewhere."""
        cuda = self.accelerator in ("auto", "gpu") and torch.cuda.is_available()
        if self.precision == "fp16" and not cuda:
            raise UserError("precision: found fp16 without a CUDA device, expected bf16 or fp32 there")
        if self.precision != "auto":
            return self.precision
        return "bf16" if cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def launch(devices: Devices, function: Callable[..., Result], *arguments: Any) -> Result:
    """`function(fabric, *arguments)` on every process; the result of the first.

    Several processes on one machine are started here, and a failure of one ends all of them; under torchrun or SLURM the processes are
    theirs. A `UserError` of any process is raised here.
    """
    complaints = processes.get_context("spawn").SimpleQueue()
    try:
        fabric = Fabric(
            accelerator=devices.accelerator,
            devices=devices.devices,
            num_nodes=devices.nodes,
            strategy=_strategy(devices),
            precision=FABRIC_PRECISION[devices.resolved_precision()],
        )
    except (RuntimeError, ValueError) as error:  # Lightning's MisconfigurationException and its kin: devices that are not there
        found = " ".join(str(error).split())
        raise UserError(f"devices: {found} Expected devices of this machine; change --accelerator, --devices or --strategy") from None
    if _starts_processes(devices):
        try:
            # in a partial, as Fabric takes dataclasses among the arguments apart
            return fabric.launch(partial(_complaining, function, complaints, processes.get_start_method(), arguments))
        except (ProcessRaisedException, ProcessExitedException):
            if complaints.empty():
                raise
            raise UserError(complaints.get()) from None
    fabric.launch()
    return function(fabric, *arguments)


@contextmanager
def repeatable(seed: int, *, deterministic: bool) -> Iterator[None]:
    """Seed torch; with `deterministic` allow deterministic algorithms only, and name the operation that has none in a `UserError`.

    Otherwise let cuDNN try its algorithms for speed. The caller's choices are restored afterwards.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS has no deterministic mode
    torch.use_deterministic_algorithms(deterministic or before[0])
    torch.backends.cudnn.benchmark = not deterministic
    torch.manual_seed(seed)
    try:
        yield
    except RuntimeError as error:
        if deterministic and "deterministic" in str(error):
            raise UserError(f"deterministic: {str(error).split('. ')[0]}; leave out --deterministic, or train on the CPU") from None
        raise
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def _complaining(function: Callable[..., Result], complaints: Any, method: str, arguments: tuple[Any, ...], fabric: Fabric) -> Result:
    """Run in a started process: hand a `UserError` to the parent in words before the process fails with it.

    `method` is how the parent starts processes of its own: readers of pictures start here as they would there, not by a slow spawn.
    """
    processes.set_start_method(method, force=True)
    try:
        return function(fabric, *arguments)
    except UserError as error:
        complaints.put(str(error))
        raise


def _started_elsewhere() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_NTASKS" in os.environ


def _starts_processes(devices: Devices) -> bool:
    return devices.strategy != "fsdp" and devices.devices * devices.nodes > 1 and not _started_elsewhere()


def _strategy(devices: Devices) -> str | Strategy:
    if devices.strategy == "fsdp":
        return FSDPStrategy(state_dict_type="full")
    if _starts_processes(devices):
        return "ddp_spawn"
    return "ddp" if devices.strategy == "ddp" or devices.devices * devices.nodes > 1 else "auto"
