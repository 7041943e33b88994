"""Freed memory stays with the process: large blocks are not wiped by the system again and again."""

import subprocess
import sys

import pytest

PASSES = """
import resource, statistics, torch
{before}
def faults():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(40, 1024, 1024) + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start
print(statistics.median(faults() for _ in range(11)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_a_pass_over_large_blocks_causes_no_page_faults() -> None:
    """The median of eleven passes: the heap may grow by a block in one of them, when a small piece was put where a block had been."""

    def run(before: str) -> float:
        done = subprocess.run([sys.executable, "-c", PASSES.format(before=before)], capture_output=True, text=True, check=True)
        return float(done.stdout)

    plain, kept = run(""), run("import foveate; assert foveate.keep_freed_memory()")
    assert plain > 10_000, "160 MB a pass, in pages of 4 KiB"
    assert kept < plain / 100
