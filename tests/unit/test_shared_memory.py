"""Memory for a picture that /dev/shm has no room for: an error, not a signal that ends the loop."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASK = """
from station.errors import ModelError
from station.model import Model
model = Model.__new__(Model)
model._name, model._pixels = "glassfiber/1", None
for _ in range(2):
    try:
        model._block(5_000_000)
    except ModelError as error:
        print(error)
print(model._block(10_000).size >= 10_000)
model._pixels.close()
model._pixels.unlink()
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/unshare").exists(),
    reason="needs root and unshare, to mount a small /dev/shm",
)
def test_a_full_shared_memory_is_a_models_error() -> None:
    small = 'mount -t tmpfs -o size=100k tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        ["/usr/bin/unshare", "-m", "/bin/sh", "-c", small, "sh", sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare failed" in done.stderr or "permission denied" in done.stderr:
        pytest.skip("this computer lets nobody mount")
    *told, fits = done.stdout.splitlines()
    assert (done.returncode, fits) == (0, "True"), done.stderr
    assert len(told) == 2
    for line in told:
        assert line.startswith("model glassfiber/1: no shared memory for 5000000 bytes (No space")
