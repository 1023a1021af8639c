"""The commands end to end, as processes in their own workspace, with the journal as witness."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Simulator

from station import workspace as template
from station.records.dataset import MANIFEST, Dataset, read_image, read_record
from station.records.sheet import Manifest, pixels_sha256

STATION = [sys.executable, "-m", "station"]
SMALL = ("--size", "320", "268", "--speed", "8")
RECIPE = """
sheet_size_m: [0.24, 0.20]
setups:
  - name: left
    pose: [-0.04, -0.45, 0.26, 3.14159265, 0, 0]
  - name: right
    pose: [0.04, -0.45, 0.26, 3.14159265, 0, 0]
offsets_m: [[0, 0, 0], [0.003, 0, 0]]
working_distance_m: 0.255
approach_height_m: 0.03
travel_speed_m_s: 0.25
shot_speed_m_s: 0.2
acceleration_m_s2: 1.2
settle_s: 0.02
exposure_us: 8000
gain_db: 0
smallest_defect_mm: 3
"""
SHOTS = 4
ACCEPT, REJECT, BUSY = 0, 1, 2


@pytest.fixture(scope="module")
def sim(simulator: Callable[..., Simulator]) -> Simulator:
    return simulator(*SMALL, "--defect-rate", "1", "--defect", "nut")


class Station:
    """A workspace, and the station's commands run in it against one simulator."""

    def __init__(self, folder: Path, sim: Simulator) -> None:
        template.init(folder)
        self.folder = folder
        self.sim = sim
        self.write("recipes/two.yaml", RECIPE)
        self.cell = folder / "calibration" / "test.yaml"
        self.cell.write_text(Path(sim.env["STATION_CELL"]).read_text())
        self._seen = len(sim.journal())

    def write(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text, encoding="utf-8")

    def edit_cell(self, old: str, new: str) -> None:
        text = self.cell.read_text()
        assert old in text
        self.cell.write_text(text.replace(old, new, 1))

    def start(self, command: str, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, **self.sim.env, "STATION_CELL": str(self.cell)}
        return subprocess.Popen(
            [*STATION, *command.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**environment, "PYTHONPATH": str(ROOT)},
            **options,
        )

    def run(self, command: str, **options: Any) -> Ended:
        return Ended.of(self.start(command, **options))

    def journal(self, *events: str) -> list[dict[str, Any]]:
        """Return what happened since this workspace was made."""
        return [e for e in self.sim.journal()[self._seen :] if e["event"] in events]

    def moves(self) -> list[dict[str, Any]]:
        return [e for e in self.journal("command") if e["name"].startswith("move")]

    def manifests(self, recipe: str = "two") -> list[Manifest]:
        return [record for _, record in Dataset(self.folder, recipe).captures()]


class Ended:
    """How a command ended and what it said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.lines = out.splitlines()
        self.err = err

    @classmethod
    def of(cls, process: subprocess.Popen[str], timeout_s: float = 30) -> Ended:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return cls(process.returncode, out, err)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def complaint(self) -> str:
        """Return the one line that says what is wrong."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("station: ")]
        assert len(lines) == 1, self.err
        return lines[0]


@pytest.fixture
def station(sim: Simulator, tmp_path: Path) -> Iterator[Station]:
    """A fresh workspace and a controller cleared of what the last test did to it."""
    for command in ("accept", "whole", "offset 0 0 0", "slider 1", "remote", "reset"):
        sim.send(command)
    sim.wait_for(lambda: not sim.send("state")["busy"])
    yield Station(tmp_path / "ws", sim)


def wait_until(condition: Callable[[], object], deadline_s: float = 30.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def pictures(station: Station) -> list[Path]:
    """Return the pictures of the sheet being worked on."""
    return list(station.folder.glob("data/two/.partial/**/*.png"))


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


def test_pictures_that_cannot_be_saved_end_the_run_with_code_5(station: Station) -> None:
    """A full disk: manifests are small enough to be written, pictures are not."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))

    ended = station.run("capture --recipe two --sheets 1 --json", preexec_fn=small_files)
    assert ended.code == 5, (ended.code, ended.err)
    assert all(not manifest.complete for manifest in station.manifests())


# --- inspect ---


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    script = Path(__file__).with_name("toy_models.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(script), str(folder)], check=True, env=environment)
    return folder / "models"


class Inspection:
    """A station that inspects with a toy model: a picture's score is its mean grey."""

    def __init__(self, station: Station, models: Path) -> None:
        self.station = station
        shutil.copytree(models, station.folder / "models", dirs_exist_ok=True)

    def judge_by(self, model: str, threshold: float) -> None:
        text = f"{RECIPE}model: {model}\nthreshold: {threshold}\n"
        self.station.write("recipes/two.yaml", text)

    def records(self) -> list[tuple[Path, Manifest]]:
        folders = Dataset(self.station.folder, "two").folders()
        return [(folder, read_record(folder).manifest) for folder in folders]

    def rises(self, line: int) -> list[float]:
        """Return when an output rose, in this machine's monotonic time."""
        outputs = self.station.journal("output")
        return [e["t"] for e in outputs if e["line"] == line and e["value"]]

    def recorded_at(self) -> list[float]:
        """Return when each sheet's row of the ledger could be committed: its manifest was there."""
        shift = time.time() - time.monotonic()
        return [(folder / MANIFEST).stat().st_ctime - shift for folder, _ in self.records()]


@pytest.fixture
def inspection(station: Station, models: Path) -> Inspection:
    return Inspection(station, models)


@pytest.mark.parametrize(
    ("threshold", "verdict", "line"), [(0.9, "accept", ACCEPT), (0.05, "reject", REJECT)]
)
def test_a_verdict_is_recorded_before_its_line_rises(
    inspection: Inspection, threshold: float, verdict: str, line: int
) -> None:
    inspection.judge_by("toy/1", threshold)
    ended = inspection.station.run("inspect --recipe two --sheets 2 --json")
    assert ended.code == 0, ended.err
    rows = ended.rows()
    assert [(row["verdict"], row["threshold"]) for row in rows] == [(verdict, threshold)] * 2
    for row, (folder, manifest) in zip(rows, inspection.records(), strict=True):
        assert (manifest.sheet, manifest.verdict) == (row["sheet"], verdict)
        assert len(row["captures"]) == SHOTS
        scores = []
        for file, capture in zip(row["captures"], manifest.captures, strict=True):
            pixels = read_image(inspection.station.folder / file)
            assert capture.score == pytest.approx(pixels.mean() / 255, abs=1e-4)
            scores.append(capture.score or 0.0)
            assert capture.map_file is not None
            assert (folder / capture.map_file).is_file()
        assert row["score"] == max(scores)
    assert len(inspection.rises(line)) == 2
    assert inspection.rises(ACCEPT + REJECT - line) == []
    for recorded, risen in zip(inspection.recorded_at(), inspection.rises(line), strict=True):
        assert recorded < risen, "recorded first, then signalled"
    sorted_as = [(e["accept"], e["reject"]) for e in inspection.station.journal("sorted")]
    # A sheet that the test before left unfinished goes first, with neither.
    assert sorted_as[-2:] == [(line == ACCEPT, line == REJECT)] * 2
    assert inspection.station.sim.send("state")["outputs"] & 7 == 0


def test_a_shadow_model_is_scored_and_changes_nothing(inspection: Inspection) -> None:
    inspection.judge_by("toy/1", 0.9)
    station = inspection.station
    station.write(
        "recipes/two.yaml", f"{RECIPE}model: toy/1\nthreshold: 0.9\nshadow_model: toy/1\n"
    )
    ended = station.run("inspect --recipe two --sheets 2 --json")
    assert ended.code == 0, ended.err
    assert [row["verdict"] for row in ended.rows()] == ["accept"] * 2
    rows = station.run("records --recipe two --shadow --json").rows()
    assert rows
    assert all(row["shadow_score"] == row["score"] for row in rows), "the same pixels"


@pytest.mark.bad_input("061-nan-at-run")
def test_a_model_that_fails_rejects_the_sheet_and_ends_the_run(inspection: Inspection) -> None:
    inspection.judge_by("broken/1", 0.9)
    ended = inspection.station.run("inspect --recipe two --sheets 3 --json")
    assert ended.code == 4, ended.err
    assert "not a finite number" in ended.complaint()
    assert [row["verdict"] for row in ended.rows()] == ["reject"]
    ((_, manifest),) = inspection.records()
    assert [capture.score for capture in manifest.captures] == [None] * SHOTS
    assert (len(inspection.rises(ACCEPT)), len(inspection.rises(REJECT))) == (0, 1)


def test_a_stop_in_a_sheet_leaves_it_without_a_verdict(inspection: Inspection) -> None:
    inspection.judge_by("toy/1", 0.9)
    station = inspection.station
    process = station.start("inspect --recipe two --sheets 2 --json")
    wait_until(lambda: pictures(station))
    station.sim.send("protective_stop")
    ended = Ended.of(process)
    assert ended.code == 3, ended.err
    assert "protective stop" in ended.complaint()
    ((folder, manifest),) = inspection.records()
    assert (manifest.verdict, manifest.score, manifest.complete) == ("none", None, False)
    assert 1 <= len(manifest.captures) < SHOTS
    assert all((folder / capture.file).is_file() for capture in manifest.captures)
    assert inspection.rises(ACCEPT) == inspection.rises(REJECT) == []
    tripped = station.journal("fault")[-1]["t"]
    assert [event for event in station.moves() if event["t"] > tripped + 0.1] == []


@pytest.mark.parametrize(
    ("signals", "code", "reason"),
    [
        ([signal.SIGTERM], 143, "the station was told to end"),
        ([signal.SIGINT, signal.SIGINT], 130, "stopped by Ctrl-C"),
    ],
)
@pytest.mark.parametrize("form", ["--json", ""])
def test_a_sheet_that_is_broken_off_is_told_and_recorded_as_none(
    inspection: Inspection, signals: list[signal.Signals], code: int, reason: str, form: str
) -> None:
    inspection.judge_by("toy/1", 0.9)
    station = inspection.station
    process = station.start(f"inspect --recipe two --sheets 2 {form}")
    wait_until(lambda: pictures(station))
    station.sim.send("slider 0.2")  # leaves time for both signals, which must not merge into one
    for number in signals:
        process.send_signal(number)
        time.sleep(0.5)
    ended = Ended.of(process)
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    ((_, manifest),) = inspection.records()
    assert (manifest.verdict, manifest.score, manifest.complete) == ("none", None, False)
    assert manifest.reasons == (reason,)
    (line,) = ended.lines
    if form:
        row = json.loads(line)
        assert (row["sheet"], row["verdict"], row["score"]) == (manifest.sheet, "none", None)
        assert row["reasons"] == [reason]
        assert len(row["captures"]) == len(manifest.captures)
    else:
        assert line.split()[:2] == [manifest.sheet, "NONE"]
    assert inspection.rises(ACCEPT) == inspection.rises(REJECT) == []
    assert not station.sim.send("state")["moving"]


def test_a_stop_on_the_way_back_leaves_the_verdict_and_tells_it(inspection: Inspection) -> None:
    inspection.judge_by("toy/1", 0.9)
    station = inspection.station
    process = station.start("inspect --recipe two --sheets 2 --json")
    wait_until(lambda: pictures(station))
    station.sim.send("slider 0.2")
    wait_until(lambda: inspection.rises(ACCEPT))
    station.sim.send("protective_stop")
    ended = Ended.of(process)
    assert ended.code == 3, ended.err
    assert "protective stop" in ended.complaint()
    ((_, manifest),) = inspection.records()
    assert manifest.verdict == "accept"
    assert [(row["sheet"], row["verdict"]) for row in ended.rows()] == [(manifest.sheet, "accept")]


def test_a_killed_inspection_leaves_a_record_without_a_verdict(inspection: Inspection) -> None:
    inspection.judge_by("toy/1", 0.9)
    station = inspection.station
    process = station.start("inspect --recipe two --sheets 2 --json")
    wait_until(lambda: pictures(station))
    process.kill()
    process.communicate()
    wait_until(lambda: not station.sim.send("state")["moving"], 1.0)
    again = station.run("inspect --recipe two --sheets 1 --json")
    assert again.code == 0, again.err
    verdicts = {manifest.sheet: manifest.verdict for _, manifest in inspection.records()}
    assert verdicts == {"sim-0001-000001": "none", "sim-0002-000001": "accept"}
    assert len(inspection.rises(ACCEPT)) == 1


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
