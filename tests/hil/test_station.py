"""The commands end to end, as processes in their own workspace, with the journal as witness."""

from __future__ import annotations

import hashlib
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from simulator import ROOT, Simulator
from station_process import (
    BUSY,
    RECIPE,
    SHOTS,
    SMALL,
    STATION,
    Ended,
    Station,
    pictures,
    wait_until,
)

from station.devices.ur import Settings, connect
from station.geometry import Pose
from station.motion import RETREAT_M_S
from station.records.dataset import read_image
from station.records.sheet import pixels_sha256


@pytest.fixture(scope="module")
def sim(simulator: Callable[..., Simulator]) -> Simulator:
    return simulator(*SMALL, "--defect-rate", "1", "--defect", "nut")


def test_captured_pictures_are_those_the_journal_names(station: Station) -> None:
    ended = station.run("capture --recipe two --label nut --sheets 2 --json")
    assert ended.code == 0, ended.err
    rows = ended.rows()
    assert [(row["label"], row["split"], row["complete"]) for row in rows] == [
        ("nut", "test", True)
    ] * 2
    shown = {event["sha256"] for event in station.journal("picture")}
    manifests = station.manifests()
    assert [m.sheet for m in manifests] == [row["sheet"] for row in rows]
    frames = []
    for row, manifest in zip(rows, manifests, strict=True):
        assert len(row["captures"]) == len(manifest.captures) == SHOTS
        for file, capture in zip(row["captures"], manifest.captures, strict=True):
            path = station.folder / file
            pixels = read_image(path)
            assert pixels.shape == (268, 320)
            assert pixels_sha256(pixels) == capture.pixels_sha256
            assert capture.pixels_sha256 in shown
            entry = manifest.files[capture.file]
            assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            assert entry.bytes == path.stat().st_size
            assert 0 < capture.pose.distance_m(capture.pose_asked) < 0.0005
            frames.append(capture.pixels_sha256)
    assert len(set(frames)) == 2 * SHOTS, "every shot has a picture of its own"
    assert frames == [
        event["sha256"] for event in station.journal("picture") if event["sha256"] in frames
    ], "in the order they were shown"

    labelled = station.run(f"label --recipe two --from {station.sim.truth} --json")
    assert labelled.code == 0, labelled.err
    (told,) = labelled.rows()
    assert (sum(told["labels"].values()), told["unmatched"]) == (2 * SHOTS, 0)
    masks = sorted((station.folder / "data/two/ground_truth").rglob("*.png"))
    assert masks
    for mask in masks:
        assert read_image(mask).shape == (268, 320)
        picture = station.folder / "data/two/test" / mask.parent.name
        assert (picture / mask.name.replace("_mask", "")).is_file()


def test_the_arm_moves_only_while_busy_is_high(station: Station) -> None:
    assert station.run("capture --recipe two").code == 0
    high, moved_while_low = False, []
    for event in station.journal("output", "command"):
        if event["event"] == "output" and event["line"] == BUSY:
            high = event["value"]
        elif event["event"] == "command" and event["name"].startswith("move") and not high:
            moved_while_low.append(event)
    assert not moved_while_low


@pytest.mark.bad_input("118-ctrl-c-once")
def test_ctrl_c_finishes_the_shot_and_the_same_command_continues(station: Station) -> None:
    command = "capture --recipe two --sheets 2 --json"
    process = station.start(command)
    wait_until(lambda: len(station.manifests()) == 1 and pictures(station))
    process.send_signal(signal.SIGINT)
    ended = Ended.of(process)
    assert ended.code == 130, ended.err
    assert "stopping once the shot under way is done" in ended.err
    assert "stopped with 1 of 2 sheets; the same command continues" in ended.err
    assert [row["complete"] for row in ended.rows()] == [True, False]
    assert not station.sim.send("state")["moving"]
    first, second = station.manifests()
    assert (first.complete, second.complete) == (True, False)
    assert 0 < len(second.captures) < SHOTS
    assert second.reasons[0].startswith("stopped")
    assert len(list((station.folder / "data/two/train/good").iterdir())) == SHOTS
    half = station.folder / "data/two/incomplete/good"
    assert sorted(p.name for p in half.iterdir()) == sorted(c.file for c in second.captures)

    again = station.run(command)
    assert again.code == 0, again.err
    assert "continuing: 1 of 2 sheets are there" in again.err
    assert [row["complete"] for row in again.rows()] == [True]
    assert len({m.sheet for m in station.manifests()}) == 3


def test_ctrl_c_at_the_terminal_reaches_simulator_and_command_alike(
    station: Station,
) -> None:
    """A terminal signals the whole group; the command must not take that for two."""
    sim = "sim --address 127.77.3.1 --speed 8 --size 320x268"
    process = subprocess.Popen(
        [*STATION, *sim.split(), "--", *STATION, *["capture", "--recipe", "two", "--sheets", "9"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=station.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    wait_until(lambda: pictures(station))
    os.killpg(process.pid, signal.SIGINT)
    ended = Ended.of(process)
    assert "Traceback" not in ended.err, ended.err
    assert ended.code == 130
    assert "the same command continues" in ended.err, ended.err


def test_the_robot_is_asked_about_every_pose_and_not_moved(station: Station) -> None:
    ended = station.run("check --recipe two --cell --json")
    assert ended.code == 0, ended.err
    whats = [row["what"] for row in ended.rows()]
    assert f"the robot reaches all {SHOTS} poses inside its safety limits" in whats
    assert station.moves() == []


def test_where_the_arm_stands_becomes_a_setup_without_a_script(station: Station) -> None:
    told = station.run("where --json")
    assert told.code == 0, told.err
    truth = station.sim.send("state")["pose"]
    assert told.rows()[0]["pose"][:3] == pytest.approx(truth[:3], abs=3e-4)
    added = station.run("where --append two --name here")
    assert added.code == 0, added.err
    assert added.lines == ["recipes/two.yaml: added setup here"]
    assert "- name: here" in (station.folder / "recipes/two.yaml").read_text()
    assert station.run("check --recipe two").code == 0
    assert station.journal("command", "program") == []


def test_one_picture_is_taken_without_the_robot(station: Station) -> None:
    ended = station.run("snap --out one.png --json")
    assert ended.code == 0, ended.err
    (row,) = ended.rows()
    assert (row["width"], row["height"]) == (320, 268)
    assert {"sharpness", "mean", "saturated_share"} <= set(row)
    picture = pixels_sha256(read_image(station.folder / "one.png"))
    assert picture == station.sim.events("picture")[-1]["sha256"]
    assert station.journal("command", "program") == []


@pytest.mark.parametrize("fault", ["protective_stop", "cut"])
def test_a_fault_in_a_sheet_ends_the_run_and_nothing_moves_after(
    station: Station, fault: str
) -> None:
    process = station.start("capture --recipe two --sheets 2 --json")
    wait_until(lambda: pictures(station))
    station.sim.send(fault)
    ended = Ended.of(process)
    assert ended.code == 3, ended.err
    complaint = ended.complaint()
    assert station.sim.address in complaint
    assert ";" in complaint, "the next human action is told"
    (manifest,) = station.manifests()
    assert not manifest.complete
    assert 1 <= len(manifest.captures) < SHOTS
    assert manifest.reasons
    for capture in manifest.captures:
        assert (station.folder / "data/two/incomplete/good" / capture.file).is_file()
    tripped = station.journal("fault")[-1]["t"]
    after = [event for event in station.moves() if event["t"] > tripped + 0.1]
    assert after == []
    assert not station.sim.send("state")["moving"]
    assert not [e for e in station.journal("output") if e["line"] in (0, 1) and e["value"]]


@pytest.mark.bad_input("119-sigterm", "122-second-instance")
def test_two_processes_never_command_one_cell(station: Station) -> None:
    process = station.start("capture --recipe two --sheets 9")
    wait_until(station.moves)
    second = station.run("capture --recipe two")
    assert second.code == 3
    assert "another station command is using this cell" in second.complaint()
    assert station.run("where").code == 3

    started = time.monotonic()
    process.terminate()
    ended = Ended.of(process)
    assert time.monotonic() - started < 5
    assert ended.code in (143, -signal.SIGTERM), ended.err
    assert "Traceback" not in ended.err
    wait_until(lambda: not station.sim.send("state")["moving"], 1.0)
    count = len(station.moves())
    assert station.run("where").code == 0, "the lock is free again"
    assert len(station.moves()) == count


@pytest.mark.parametrize(
    ("old", "new", "code", "expected"),
    [
        ("tcp: [0, 0, 0.10", "tcp: [0, 0, 0.12", 2, "tcp: the robot has"),
        ('serial: "0815-0000"', 'serial: "0815-0009"', 3, "0815-0009"),
        ('serial: "0815-0000"', 'sreial: "0815-0000"', 2, "test.yaml"),
    ],
)
def test_a_wrong_cell_file_ends_before_anything_moves(
    station: Station, old: str, new: str, code: int, expected: str
) -> None:
    station.edit_cell(old, new)
    ended = station.run("capture --recipe two")
    assert ended.code == code, ended.err
    assert expected in ended.complaint()
    assert station.moves() == []
    assert not (station.folder / "data" / "two").exists()


def test_a_setup_outside_the_workspace_ends_before_anything_moves(station: Station) -> None:
    station.write("recipes/two.yaml", RECIPE.replace("[0.04, -0.45, 0.26", "[0.04, -0.45, 0.12"))
    ended = station.run("capture --recipe two")
    assert ended.code in (2, 3), ended.err
    assert "leave the workspace" in ended.complaint()
    assert station.moves() == [], "a recipe is checked whole before anything moves"


def test_a_capture_begins_with_a_slow_retreat(station: Station) -> None:
    low = Pose(0.02, -0.45, 0.25, math.pi, 0, 0)
    with connect(Settings(host=station.sim.address)) as robot:
        robot.move(low, 0.25, 1.2, 10.0)
    moves = len(station.moves())
    assert station.run("capture --recipe two --sheets 1").code == 0
    retreat, *others = (move["args"] for move in station.moves()[moves:])
    assert retreat[:3] == pytest.approx((low.x, low.y, 0.29), abs=1e-3)
    assert retreat[6] == RETREAT_M_S
    assert others, "and only then goes on"


def test_pictures_that_cannot_be_saved_end_the_run_with_code_5(station: Station) -> None:
    """A full disk: manifests are small enough to be written, pictures are not."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))

    ended = station.run("capture --recipe two --sheets 1 --json", preexec_fn=small_files)
    assert ended.code == 5, (ended.code, ended.err)
    assert all(not manifest.complete for manifest in station.manifests())


def test_the_overview_needs_no_heavy_library() -> None:
    code = (
        "import sys\nfrom station.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pypylon', 'numpy', 'cv2', 'pydantic', 'rich', 'rtde_control'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
