"""Figures from the simulator are worth something only with the version of its scene."""

from pathlib import Path

from station.config import load_cell
from station.sim.scene import SCENE_VERSION

ROOT = Path(__file__).parents[2]


def test_records_of_the_simulated_cell_carry_the_version_of_its_scene() -> None:
    cell = load_cell(ROOT / "calibration" / "sim.yaml").config
    assert cell.scene_version == SCENE_VERSION


def test_a_real_cell_has_no_scene() -> None:
    assert load_cell(ROOT / "calibration" / "cell.yaml").config.scene_version is None
