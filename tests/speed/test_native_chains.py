"""The chains' C++ is compiled on the spot, shares PyTorch's threads, and is done without where it cannot be had."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import foveate
from foveate.speed.native.chains import can_join

pytestmark = pytest.mark.skipif(not can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP")

PROCESS = """
import torch, foveate
model = foveate.create_model("fvit_tiny_dp", depths=(1, 1, 1, 1), widths=(16, 24, 32, 40), stem_width=8).eval()
fast, x = foveate.optimize(model), torch.randn(1, 3, 32, 32)
print(any("joined" in step for step in fast.optimized), torch.allclose(fast(x), model(x), atol=1e-5))
"""


def run_process(folder: Path, code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a folder of its own: a compiler that is asked for its version may write there."""
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env={**os.environ, **environment})


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks the Linux kernel which libraries are loaded")
def test_the_chains_share_pytorchs_threads(tmp_path: Path) -> None:
    loaded = 'print(*{line.split()[-1] for line in open("/proc/self/maps") if any(name in line for name in ("gomp", "libomp", "iomp"))})'
    joined_there, same, *libraries = run_process(tmp_path, PROCESS + loaded).stdout.split()
    assert (joined_there, same) == ("True", "True")
    assert len(libraries) == 1


@pytest.mark.parametrize("words", ["echo no such instruction >&2; exit 1", 'echo no library > "$last"'], ids=["fails", "writes nonsense"])
def test_a_compiler_that_fails_is_told_and_the_model_works(words: str, tmp_path: Path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text(f"#!/bin/sh\nfor last; do :; done\n{words}\n")
    compiler.chmod(0o755)
    done = run_process(tmp_path, PROCESS, CXX=f"{compiler} --a-word")
    assert done.stdout.split() == ["False", "True"]
    assert "native code (chains) could not be built with" in done.stderr
    assert "models stay without it: " in done.stderr


def test_a_kept_copy_works_where_there_is_no_compiler(tmp_path: Path) -> None:
    fast = foveate.optimize(foveate.create_model("fvit_tiny", depths=(1, 1, 1, 1), widths=(16, 24, 32, 40), stem_width=8).eval())
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.save((fast, x, fast(x)), tmp_path / "kept.pt")
    code = "import sys, torch\nfast, x, y = torch.load(sys.argv[1], weights_only=False)\nprint(torch.allclose(fast(x), y, atol=1e-4))"
    assert run_process(tmp_path, code, str(tmp_path / "kept.pt"), CXX="/no/compiler").stdout.split() == ["True"]
