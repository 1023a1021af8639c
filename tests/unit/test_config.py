"""The cell file: what it must say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from station import devices
from station.cell import camera_driver, check_installation
from station.config import Box, CellConfig, load_cell, open_workspace
from station.devices import RobotInfo
from station.errors import ConfigError
from station.geometry import Pose
from station.strict import parse

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "calibration" / "cell.yaml").read_text(encoding="utf-8")
FILE = Path("calibration/a.yaml")


def cell(old: str = "", new: str = "") -> CellConfig:
    assert old in TEXT
    return parse(TEXT.replace(old, new, 1), FILE, CellConfig)


@pytest.mark.parametrize("name", ["cell.yaml", "sim.yaml"])
def test_the_shipped_cell_files_are_right(name: str) -> None:
    loaded = load_cell(ROOT / "calibration" / name)
    devices.check(loaded.config.robot, name)


def test_the_simulated_cell_differs_from_the_real_one_in_addresses_only() -> None:
    real, simulated = cell(), load_cell(ROOT / "calibration" / "sim.yaml").config
    assert real.robot.driver == simulated.robot.driver == "ur"
    assert real.camera.driver == simulated.camera.driver == "basler"
    assert set(real.robot.settings) == set(simulated.robot.settings)
    assert set(real.camera.settings) == set(simulated.camera.settings)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "accept: 0 ",
            "accept: 1 ",
            "lines: accept, reject and busy must be three different outputs",
        ),
        ("busy: 2", "busy: 8", "lines.busy: "),
        ("busy: 2", "busy: -1", "lines.busy: "),
        ("min_m: [-0.35", "min_m: [0.35", "motion.workspace: every number of min_m must be below"),
        ("min_m: [-0.35", "min_m: [.nan", "motion.workspace.min_m[0]: .nan is not a finite number"),
        (
            "keep_out: []",
            "keep_out: [{min_m: [0, 0, 0], max_m: [1, 1, 1]}]",
            "motion.keep_out[0].name: missing",
        ),
        ("speed_limit_m_s: 0.25", "speed_limit_m_s: 0", "motion.speed_limit_m_s: "),
        ("speed_limit_m_s: 0.25", "speed_limit_m_s: 9", "motion.speed_limit_m_s: "),
        (
            "speed_limit_m_s: 0.25",
            "sped_limit_m_s: 0.25",
            "motion.sped_limit_m_s: unknown key; did you mean speed_limit_m_s?",
        ),
        ("pose_tolerance_m: 0.001", "pose_tolerance_m: 0.1", "motion.pose_tolerance_m: "),
        ("gate: input", "gate: auto", "gate: "),
        ("station: s1", "station: S 1", "station: "),
        ("driver: ur", "driver: ../ur", "robot.driver: "),
        ("tcp: [0, 0, 0.10, 0, 0, 0]", "tcp: [0, 0, 0.10]", "tcp: 3 numbers, not 6"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(old: str, new: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cell(old, new)
    where, _, what = str(caught.value).partition(": ")
    assert where.startswith("calibration/a.yaml:")
    assert what.startswith(expected)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg://a@host:port/b", "postgresql+psycopg://user@host/name is expected"),
        ("postgresql+psycopg://a@host:99999/b", "postgresql+psycopg://user@host/name is expected"),
        ("mysql://a@host/b", "postgresql+psycopg://user@host/name is expected"),
        ("postgresql+psycopg://a:geheim@host/b", "a password has no place in this file"),
        ("postgresql+psycopg://a@host/b?password=geheim", "a password has no place in this file"),
    ],
)
def test_a_ledgers_url_has_no_password_and_a_refusal_repeats_none(url: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(f"{TEXT}\nledger: {url}\n", FILE, CellConfig)
    assert f"ledger: {expected}" in str(refused.value)
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("url", ["station@db.plant/inspection", "a@[::1]:5432/b", "a@/b?host=/run"])
def test_a_ledgers_url_is_taken(url: str) -> None:
    whole = f"postgresql+psycopg://{url}"
    assert parse(f"{TEXT}\nledger: {whole}\n", FILE, CellConfig).ledger == whole


def test_a_missing_cell_file_says_what_to_copy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"copy calibration/cell.yaml"):
        load_cell(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("driver: ur", "driver: kuka", "no driver 'kuka'; there are basler, ur"),
        ("driver: ur", "driver: ur_child", "no driver 'ur_child'"),
        ("host: 192.168.56.101", "host: 5", "host"),
    ],
)
def test_wrong_driver_settings_are_refused_before_anything_opens(
    old: str, new: str, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        devices.check(cell(old, new).robot, "calibration/a.yaml: robot")


def test_a_settings_mistake_names_the_misspelt_key() -> None:
    wrong = cell("host: 192.168.56.101", "hosst: 192.168.56.101")
    with pytest.raises(ConfigError, match="hosst"):
        devices.check(wrong.robot, "calibration/a.yaml: robot")


def test_a_settings_file_of_the_camera_lies_in_the_workspace() -> None:
    config = cell('serial: "40000000"', 'serial: "40000000"\n    pfs: calibration/4.pfs')
    settings = camera_driver(config, Path("/ws")).settings
    assert settings["pfs"] == "/ws/calibration/4.pfs"
    assert config.camera.settings["pfs"] == "calibration/4.pfs"


UNIT = Box(min_m=(0, 0, 0), max_m=(1, 1, 1))


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), True),  # stands inside
        ((1.0, 0.5, 0.5), (1.0, 0.5, 0.5), True),  # stands on a face
        ((1.001, 0.5, 0.5), (1.001, 0.5, 0.5), False),
        ((-1, 0.5, 0.5), (2, 0.5, 0.5), True),  # straight through
        ((-1, 1.5, 0.5), (2, 1.5, 0.5), False),  # past it
        ((-1, 0.5, 0.5), (-0.1, 0.5, 0.5), False),  # ends before it
        ((-1, 0.5, 0.5), (0, 0.5, 0.5), True),  # ends at its face
        ((1.1, 0.5, 0.5), (5, 0.5, 0.5), False),  # goes away from it
        ((-0.5, 0.4, 0.5), (0.4, -0.5, 0.5), False),  # cuts the corner outside
        ((-0.5, 0.6, 0.5), (0.6, -0.5, 0.5), True),  # cuts the corner
        ((-1, -1, -1), (2, 2, 2), True),  # along the diagonal
    ],
)
def test_a_way_that_touches_a_box_is_seen(
    start: tuple[float, float, float], end: tuple[float, float, float], expected: bool
) -> None:
    assert UNIT.meets(start, end) == UNIT.meets(end, start) == expected


def test_the_view_grows_with_the_distance() -> None:
    assert cell().view_width_mm(0.255) == pytest.approx(8.45 / 16 * 255)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (RobotInfo("3.15", Pose(0, 0, 0.1002, 0, 0, 0), 1.2), "tcp: the robot has"),
        (RobotInfo("3.15", Pose(0, 0, 0.1, 0, 0, 0.002), 1.2), "tcp: the robot has"),
        (RobotInfo("3.15", Pose(0, 0, 0.1, 0, 0, 0), 1.3), "payload_kg: the robot has 1.3 kg"),
        (RobotInfo("3.15", Pose(float("nan"), 0, 0.1, 0, 0, 0), 1.2), "tcp"),
        (RobotInfo("3.15", Pose(0, 0, 0.1, 0, 0, 0), float("nan")), "payload"),
    ],
)
def test_a_robot_set_up_otherwise_is_refused(info: RobotInfo, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_installation(cell(), info)


CB3 = "URSoftware 3.15.8.106339 (Feb 20 2023)"


@pytest.mark.parametrize("wanted", ["3.15", "3.15.8", "3.15.8.106339"])
def test_the_robots_software_may_be_named(wanted: str) -> None:
    named = cell().model_copy(update={"polyscope": wanted})
    check_installation(named, RobotInfo(CB3, Pose(0, 0, 0.1, 0, 0, 0), 1.2))


@pytest.mark.parametrize(
    ("wanted", "has"), [("3.1", CB3), ("5.15", CB3), ("3.15", ""), ("3.15.8.1", "3.15.8")]
)
def test_a_robot_with_other_software_is_refused(wanted: str, has: str) -> None:
    named = cell().model_copy(update={"polyscope": wanted})
    with pytest.raises(ConfigError, match="polyscope: the robot runs"):
        check_installation(named, RobotInfo(has, Pose(0, 0, 0.1, 0, 0, 0), 1.2))


def test_a_robot_set_up_as_the_cell_file_says_is_taken() -> None:
    check_installation(cell(), RobotInfo("3.15", Pose(0, 0, 0.10005, 0, 0, 0), 1.21))


def test_a_folder_without_recipes_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipes or calibration folder.*station init"):
        open_workspace(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "calibration").mkdir()
    assert open_workspace(tmp_path) == tmp_path.resolve()
