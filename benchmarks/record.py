"""What every result file begins with, how it is written, and how a command of this project is run for it."""

import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from foveate.whole_files import write_text

RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """The name of the processor, as the system gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def machine(device: str) -> str:
    """The processor, or the GPU, that a record was measured on."""
    return torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else f"{processor()}, {os.cpu_count()} cores"


def head(method: str, device: str = "cpu") -> dict[str, Any]:
    """Method, hardware, versions and date of a record that was measured on `device`."""
    return {
        "method": method,
        "hardware": machine(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def result_file(name: str, date: str, device: str = "cpu") -> Path:
    """The file results/NAME_<hardware>_<date>.json."""
    hardware = f"cpu{os.cpu_count()}" if device == "cpu" else "-".join(re.findall(r"[a-z0-9]+", machine(device).lower()))
    return RESULTS / f"{name}_{hardware}_{date}.json"


def write(name: str, record: dict[str, Any], device: str = "cpu") -> None:
    """Write `record` to its result file, whole or not at all."""
    write_text(result_file(name, record["date"], device), json.dumps(record, indent=1) + "\n")


def foveate(*arguments: str) -> Any:
    """The JSON result of one command; what it says meanwhile goes to the screen. Exits where there is none.

    A comparison of which a part failed has one: its `problems` say which.
    """
    result = subprocess.run([sys.executable, "-m", "foveate", *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if not result.stdout:
        sys.exit(result.returncode)
    return json.loads(result.stdout)
