"""Freed memory is used again without page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource
import sys
import numpy as np
from station import process
if sys.argv[1] == "keep":
    process.prepare()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(40 << 20, np.uint8)
before = faults()
for _ in range(10):
    np.ones(40 << 20, np.uint8)
print(faults() - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_large_block_is_used_again_without_page_faults() -> None:
    pages = 10 * (40 << 20) // 4096
    left_alone, kept = page_faults("leave"), page_faults("keep")
    if left_alone < 10 * 20:  # huge pages, or another C library
        pytest.skip(f"only {left_alone} page faults without it")
    assert kept < left_alone / 10, f"{kept} of {left_alone} ({pages} small pages)"
