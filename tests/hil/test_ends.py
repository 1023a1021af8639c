"""How an inspection ends, whoever asks for it, and what surroundings it does not mind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulator import ROOT, Simulator
from station_process import ACCEPT, RECIPE, SMALL, Ended, Inspection, Station, pictures, wait_until

from station.records.dataset import Dataset, after_of, read_record

PATIENCE_S = 100.0


@pytest.fixture(scope="module")
def sim(simulator: Callable[..., Simulator]) -> Simulator:
    return simulator(*SMALL, "--defect-rate", "0")


@pytest.fixture
def station(sim: Simulator, tmp_path: Path, models: Path) -> Iterator[Station]:
    for command in ("slider 1", "reset"):
        sim.send(command)
    one = Station(tmp_path / "würk", sim)
    one.edit_cell("    host:", "    connect_timeout_s: 100  # a busy computer\n    host:")
    Inspection(one, models)
    one.write("recipes/two.yaml", f"{RECIPE}model: toy/1\nthreshold: 0.9\n")
    yield one


def outcomes(station: Station) -> list[str | None]:
    """Return what every record says was told; each must be complete."""
    records = [read_record(folder) for folder in Dataset(station.folder, "two").folders()]
    assert all(record.manifest.complete for record in records)
    return [after_of(record).outcome for record in records]


def rises(station: Station) -> int:
    return sum(e["line"] == ACCEPT and e["value"] for e in station.journal("output"))


@pytest.mark.timeout(200)
def test_a_run_that_ends_by_the_command_does_not_make_the_command_fail(station: Station) -> None:
    process = station.start("inspect --recipe two --sheets 9 --json")
    wait_until(lambda: pictures(station), PATIENCE_S)
    stopped = station.run("stop")
    assert stopped.code == 0, stopped.err
    assert stopped.lines[0].split()[1] in {"stopping", "stopped"}
    assert [row["verdict"] for row in Ended.of(process, PATIENCE_S).rows()] == ["accept"]


@pytest.mark.timeout(200)
def test_an_enter_from_before_the_question_starts_nothing(station: Station) -> None:
    station.edit_cell("gate: input", "gate: manual")
    ours, theirs = os.openpty()
    process = station.start("inspect --recipe two --sheets 1 --json", stdin=theirs)
    os.write(ours, b"\n\n")
    wait_until(lambda: station.state() == "execute", PATIENCE_S)
    time.sleep(2.0)
    assert not pictures(station)
    assert not Dataset(station.folder, "two").folders()
    os.write(ours, b"\n")
    ended = Ended.of(process, PATIENCE_S)
    os.close(theirs)
    os.close(ours)
    assert ended.code == 0, ended.err
    assert "lay a sheet and press Enter" in ended.err
    assert [row["verdict"] for row in ended.rows()] == ["accept"]


def enters(station: Station, times: int) -> Ended:
    """Inspect two sheets with so many Enters from a pipe that ends then."""
    process = station.start("inspect --recipe two --sheets 2 --json", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("\n" * times)
    process.stdin.close()
    process.stdin = None
    return Ended.of(process, PATIENCE_S)


@pytest.mark.timeout(200)
def test_every_line_of_a_pipe_is_one_enter(station: Station) -> None:
    station.edit_cell("gate: input", "gate: manual")
    ended = enters(station, 2)
    assert ended.code == 0, ended.err
    assert len(ended.rows()) == 2
    ended = enters(station, 1)
    assert ended.code == 2
    assert "gate: manual needs a keyboard; standard input is closed" in ended.complaint()
    assert len(ended.rows()) == 1


@pytest.mark.timeout(200)
@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes_ends_the_run_unless_told_otherwise(
    station: Station, ignored: bool
) -> None:
    """SIGHUP is ignored where the station was started by nohup."""
    told = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        process = station.start("inspect --recipe two --sheets 1 --json")
    finally:
        signal.signal(signal.SIGHUP, told)
    wait_until(lambda: pictures(station), PATIENCE_S)
    process.send_signal(signal.SIGHUP)
    ended = Ended.of(process, PATIENCE_S)
    assert ended.code == (0 if ignored else 129), ended.err
    (folder,) = Dataset(station.folder, "two").folders()
    assert after_of(read_record(folder)).outcome == ("accept" if ignored else "none")


@pytest.mark.timeout(200)
def test_a_verdict_that_was_told_and_never_read_goes_as_none(station: Station) -> None:
    station.sim.send("slider 0.02")  # the way back takes a while
    process = station.start("inspect --recipe two --sheets 1 --json")
    wait_until(lambda: rises(station) and station.sim.send("state")["moving"], PATIENCE_S)
    process.terminate()
    ended = Ended.of(process, PATIENCE_S)
    assert ended.code == 143
    assert [row["verdict"] for row in ended.rows()] == outcomes(station) == ["accept"]
    before = len(station.journal("sorted"))

    station.sim.send("slider 1")
    again = station.run("inspect --recipe two --sheets 1 --json")
    assert again.code == 0, again.err
    first, _ = station.journal("sorted")[before:]
    assert (first["accept"], first["reject"]) == (False, False)
    assert outcomes(station) == ["none", "accept"]
    proof = station.run("verify")
    assert proof.code == 0, proof.lines


@pytest.mark.timeout(200)
def test_one_ctrl_c_finishes_the_sheet_and_tells_it(station: Station) -> None:
    process = station.start("inspect --recipe two --sheets 9 --json")
    wait_until(lambda: pictures(station), PATIENCE_S)
    process.send_signal(signal.SIGINT)
    ended = Ended.of(process, PATIENCE_S)
    assert ended.code == 130, ended.err
    assert "stopping once the sheet under way is done; Ctrl-C again stops now" in ended.err
    assert [row["verdict"] for row in ended.rows()] == outcomes(station) == ["accept"]
    assert rises(station) == 1
    assert station.sim.send("state")["outputs"] & 7 == 0, "the sheet has gone and the lines are low"


@pytest.mark.timeout(200)
def test_a_reader_that_leaves_ends_the_run_after_a_sheet(station: Station) -> None:
    process = station.start("inspect --recipe two --sheets 99 --json")
    assert process.stdout is not None
    assert process.stdout.readline(), process.communicate()
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(PATIENCE_S) == 1, err
    assert "Traceback" not in err
    assert "nobody reads standard output any more" in err
    assert outcomes(station) == ["accept", "accept"]
    assert rises(station) == 2
    assert not station.sim.send("state")["moving"]


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("locale", "closed"),
    [
        ({"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, "inspect"),
        ({"LC_ALL": "tr_TR.UTF-8"}, "verify"),
    ],
)
def test_no_locale_no_terminal_no_output_and_no_working_directory_are_minded(
    station: Station, locale: dict[str, str], closed: str
) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    environment = {**kept, **station.sim.env, "STATION_CELL": str(station.cell), **locale}
    environment["PYTHONPATH"] = str(ROOT)
    for command in ("inspect --recipe two --sheets 1", "verify"):
        name = command.split()[0]
        done = subprocess.run(
            [sys.executable, "-m", "station", *command.split(), "--workspace", station.folder],
            cwd="/proc",  # nothing can be written there
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            preexec_fn=(lambda: os.close(1)) if name == closed else None,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert (done.stdout == b"") == (name == closed)
    assert outcomes(station) == ["accept"]


@pytest.fixture
def read_only(station: Station) -> Iterator[Station]:
    run = {"capture_output": True, "text": True, "check": False}
    folder = str(station.folder)
    for command in (["--bind", folder, folder], ["-o", "remount,bind,ro", folder]):
        told = subprocess.run(["mount", *command], **run)  # type: ignore[call-overload]  # noqa: S607
        if told.returncode != 0:
            subprocess.run(["umount", folder], **run)  # type: ignore[call-overload]  # noqa: S607
            pytest.skip(f"nothing can be mounted here: {told.stderr.strip()}")
    yield station
    subprocess.run(["umount", folder], check=True)  # noqa: S607


def test_a_workspace_that_cannot_be_written_ends_before_anything_moves(read_only: Station) -> None:
    ended = read_only.run("inspect --recipe two --sheets 1")
    assert ended.code == 5, ended.err
    assert "Read-only file system" in ended.complaint()
    assert read_only.moves() == []
