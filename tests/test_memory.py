"""Freed memory stays with the process: large blocks are not wiped by the system again and again."""

import subprocess
import sys

import pytest

PASSES = """
import resource, torch
{before}
def faults():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(40, 1024, 1024) + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start
faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_large_blocks_cause_no_page_faults_again() -> None:
    def run(before: str) -> int:
        return int(subprocess.run([sys.executable, "-c", PASSES.format(before=before)], capture_output=True, text=True, check=True).stdout)

    plain, kept = run(""), run("import foveate; assert foveate.keep_freed_memory()")
    assert plain > 10_000, "160 MB a pass, in pages of 4 KiB"
    assert kept < plain / 100
