"""Simulated power cuts while sheets are recorded: `python tests/hil/power_cut.py 24`, as root.

An ext4 file system lies in a file. A writer records sheets on it with the station's own code and
acknowledges each where the line would rise. It is stopped, and the file is copied: the copy holds
what reached the block layer, and the page cache is lost, as when the power goes. The copy is
mounted, the station's own recovery runs, and every acknowledged sheet must be there, whole.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy
from sqlalchemy.pool import Pool

from station import log
from station.geometry import Pose
from station.kinematics import Joints
from station.records.dataset import Dataset, now, save_image, save_map
from station.records.ledger import open_ledger
from station.records.recovery import recover
from station.records.sheet import Capture, Manifest, Verdict, pixels_sha256
from station.records.verify import check_record, verify

ROOT = Path(__file__).parents[2]
IMAGE_MB = 64
RECIPE = "cut"
PLACE = Pose(0.0, -0.45, 0.26, 3.14159265, 0.0, 0.0)
FEWEST, MOST = 3, 30  # sheets acknowledged before the power goes
PATIENCE_S = 300.0


def why_not() -> str | None:
    """Say why no power can be cut here, or None."""
    if os.geteuid() != 0:
        return "mounting a file system needs root"
    for tool in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    with tempfile.TemporaryDirectory() as folder:
        image = _new_image(Path(folder))
        told = _run("mount", "-o", "loop", str(image), folder)
        if told.returncode != 0:
            return f"no loop device can be mounted here: {told.stderr.strip()}"
        _run("umount", folder)
    return None


def write(workspace: Path, broken: bool) -> None:
    """Record sheets for ever; print each id where its line would rise."""
    # What the station logs goes to standard error: standard output is the acknowledgement.
    if broken:  # what the trials must be able to tell from the station's own writing
        os.fsync = lambda _: None  # type: ignore[assignment]

        @sqlalchemy.event.listens_for(Pool, "checkout")
        def _careless(connection: Any, *_: object) -> None:
            connection.execute("PRAGMA synchronous=OFF")

    random_pixels = np.random.default_rng(os.getpid())
    with open_ledger(workspace) as ledger:
        dataset = Dataset(workspace, RECIPE, ledger)
        recover(dataset, ledger, "cut")
        for number in itertools.count(1):
            sheet = f"cut-0001-{number:06d}"
            folder = dataset.begin("inspection", sheet)
            files, captures = {}, []
            for shot in (1, 2, 3):
                image = random_pixels.integers(0, 256, (60, 80), dtype=np.uint8)
                name, map_name = f"{sheet}_a_{shot}.png", f"{sheet}_a_{shot}_map.npy"
                files[name] = save_image(folder / name, image)
                files[map_name] = save_map(folder / map_name, np.zeros((8, 8), np.float32))
                captures.append(_capture(name, map_name, shot, pixels_sha256(image)))
            manifest = Manifest(
                schema=1,
                kind="inspection",
                sheet=sheet,
                run="cut-0001",
                started_at=now(),
                finished_at=now(),
                complete=True,
                recipe=RECIPE,
                recipe_sha256="0" * 64,
                cell_sha256="0" * 64,
                threshold=0.5,
                setup_score="highest",
                score=0.1,
                verdict=Verdict.ACCEPT,
                captures=tuple(captures),
                files=files,
                software={},
            )
            place = dataset.record_inspection(folder, manifest)
            os.write(1, f"{sheet}\n".encode())
            dataset.note(place, "signalled", outcome="accept")


def trial(folder: Path, seed: int, *, broken: bool = False) -> Counter[str]:
    """Cut the power once; return what was acknowledged and what of it is lost."""
    chance = random.Random(seed)  # noqa: S311 - it only chooses moments
    image = _new_image(folder)
    with _mounted(image, folder / "live") as live:
        acknowledged = _write_until_cut(live, chance, broken)
        copy = folder / "after.img"
        shutil.copyfile(image, copy)
        _writer_gone()
    with _mounted(copy, folder / "after") as after, open_ledger(after) as ledger:
        dataset = Dataset(after, RECIPE, ledger)
        before = {row["sheet"] for row in ledger.rows()}
        recover(dataset, ledger, "cut")
        folders = {place.name: place for place in dataset.folders()}
        rows = {row["sheet"]: row for row in ledger.rows()}
        whole = {s for s, place in folders.items() if not check_record(place).problems}
        proof = verify(after, ledger, [RECIPE], "cut", lambda _: None)
        found = Counter(
            acknowledged=len(acknowledged),
            lost=len(acknowledged - whole),
            rows_adopted=len(acknowledged - before),
            rows_lost=len(acknowledged - rows.keys()),
            problems=len(proof.problems),
            unfinished=proof.unfinished,
        )
    for used in (image, copy):
        used.unlink()
    return found


def run(folder: Path, trials: int, seed: int, *, broken: bool = False) -> Counter[str]:
    """Cut the power `trials` times."""
    total: Counter[str] = Counter(trials=trials)
    for number in range(trials):
        total.update(trial(folder, seed + number, broken=broken))
    return total


_writers: list[subprocess.Popen[bytes]] = []


def _write_until_cut(live: Path, chance: random.Random, broken: bool) -> set[str]:
    command = [sys.executable, __file__, "--write", str(live), *(["--broken"] if broken else [])]
    writer = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    _writers.append(writer)
    assert writer.stdout is not None
    wanted = chance.randint(FEWEST, MOST)
    told = b""
    end = time.monotonic() + PATIENCE_S
    while told.count(b"\n") < wanted:
        assert time.monotonic() < end, "the writer does not come on"
        if select.select([writer.stdout], [], [], 1.0)[0]:
            told += os.read(writer.stdout.fileno(), 65536)
    time.sleep(chance.uniform(0, 0.05))
    writer.send_signal(signal.SIGSTOP)
    # Only what it said before it stood still counts as acknowledged before the cut.
    while select.select([writer.stdout], [], [], 0.2)[0]:
        told += os.read(writer.stdout.fileno(), 65536)
    return set(told.decode().split())


def _writer_gone() -> None:
    writer = _writers.pop()
    writer.kill()
    writer.communicate()


def _new_image(folder: Path) -> Path:
    image = folder / "disk.img"
    with image.open("wb") as stream:
        stream.truncate(IMAGE_MB << 20)
    assert _run("mkfs.ext4", "-q", "-F", str(image)).returncode == 0
    return image


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextmanager
def _mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    mounted = _run("mount", "-o", "loop", str(image), str(place))
    assert mounted.returncode == 0, mounted.stderr
    try:
        yield place
    finally:
        while _writers:
            _writer_gone()
        unmounted = _run("umount", str(place))
        assert unmounted.returncode == 0, unmounted.stderr


def _capture(name: str, map_name: str, shot: int, pixels: str) -> Capture:
    return Capture(
        file=name,
        pixels_sha256=pixels,
        width=80,
        height=60,
        setup="a",
        shot=shot,
        pose_asked=PLACE,
        pose=PLACE,
        joints_rad=Joints(0, 0, 0, 0, 0, 0),
        exposure_us=8000.0,
        gain_db=0.0,
        frame=shot,
        taken_at=now(),
        score=0.1,
        map_file=map_name,
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("trials", type=int, nargs="?", default=24)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--broken", action="store_true", help="write without fsync: must lose")
    options.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    log.configure(verbose=False)
    if given.write is not None:
        write(given.write, given.broken)
    elif reason := why_not():
        sys.exit(reason)
    else:
        with tempfile.TemporaryDirectory(prefix="station-cut-") as place:
            total = run(Path(place), given.trials, given.seed, broken=given.broken)
            sys.stdout.write(f"{json.dumps(total)}\n")
