"""`station check`: what is said of a recipe without moving anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from arm_double import HOME, ArmDouble
from sheets import capture, manifest

from station.cell import check_settings_file
from station.check import Finding, _check_frames, _check_learned, check_reach, check_recipe
from station.config import LoadedCell, load_cell
from station.errors import ConfigError
from station.model_card import load_card
from station.recipe import load_recipe
from station.records.sheet import FileEntry

ROOT = Path(__file__).parents[2]
RECIPE = "glassfiber"


class Desk:
    """A workspace whose recipe and cell file a test may edit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "recipes", folder / "recipes")
        shutil.copytree(ROOT / "calibration", folder / "calibration")
        # No camera driver here: vendor libraries stay out of the tests' own process.
        self.edit("calibration/sim.yaml", "driver: basler", "driver: ur")
        self.edit("calibration/sim.yaml", 'serial: "0815-0000"', "host: none")
        self.edit("recipes/glassfiber.yaml", "smallest_defect_mm: 3", "smallest_defect_mm: 3")

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def cell(self) -> LoadedCell:
        return load_cell(self.folder / "calibration" / "sim.yaml")

    def findings(self) -> list[Finding]:
        return list(check_recipe(self.folder, load_recipe(self.folder, RECIPE), self.cell()))

    def errors(self) -> list[str]:
        return [finding.what for finding in self.findings() if finding.level == "error"]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    path = tmp_path / "recipes" / "glassfiber.yaml"
    kept = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if not line.startswith(("model:", "threshold:"))
    ]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return desk


def test_the_shipped_recipe_can_be_travelled(desk: Desk) -> None:
    assert desk.errors() == []
    assert any("12 shots: every line is inside" in f.what for f in desk.findings())


def test_a_recipe_without_a_model_is_told_what_comes_next(desk: Desk) -> None:
    assert any("no model yet" in f.what for f in desk.findings() if f.level == "warning")


def test_a_model_that_is_not_there_is_an_error(desk: Desk) -> None:
    desk.edit("recipes/glassfiber.yaml", "gain_db: 0", "gain_db: 0\nmodel: none/1")
    assert any("no model 'none/1'" in error for error in desk.errors())


def test_millimetres_per_model_pixel_are_told_and_a_small_defect_warned_of(desk: Desk) -> None:
    told = [f for f in desk.findings() if "mm per model pixel" in f.what]
    assert len(told) == 1
    pixel_mm = 8.45 / 16 * 285 / 256
    assert told[0].what.startswith(f"{pixel_mm:.2f} mm per model pixel")
    desk.edit("recipes/glassfiber.yaml", "smallest_defect_mm: 3", "smallest_defect_mm: 1")
    (finding,) = [f for f in desk.findings() if "mm per model pixel" in f.what]
    assert finding.level == "warning"
    assert "the smallest defect of 1 mm is below 3 of them" in finding.what


def test_a_setup_outside_the_workspace_is_an_error_with_its_name(desk: Desk) -> None:
    desk.edit("recipes/glassfiber.yaml", "[0.064, -0.395, 0.29", "[0.064, -0.395, 0.12")
    (error,) = desk.errors()
    assert "right-back shot 1" in error
    assert "leave the workspace" in error


def test_a_keep_out_box_on_the_way_is_an_error(desk: Desk) -> None:
    box = "keep_out: [{name: lamp, min_m: [-0.02, -0.5, 0.2], max_m: [0.02, -0.3, 0.5]}]"
    desk.edit("calibration/sim.yaml", "keep_out: []", box)
    (error,) = desk.errors()
    assert "lamp" in error


def test_the_way_back_above_the_first_setup_is_walked_too(desk: Desk) -> None:
    """After the last shot the arm returns in a straight line: right-front to left-front."""
    box = "keep_out: [{name: lamp, min_m: [-0.02, -0.6, 0.1], max_m: [0.02, -0.48, 0.5]}]"
    desk.edit("calibration/sim.yaml", "keep_out: []", box)
    assert any("lamp" in error for error in desk.errors())


def test_a_driver_that_does_not_exist_is_an_error_of_the_cell_file(desk: Desk) -> None:
    desk.edit("calibration/sim.yaml", "driver: ur", "driver: kuka")
    with pytest.raises(Exception, match=r"sim\.yaml:6: robot\.driver: no driver 'kuka'"):
        desk.findings()


@pytest.mark.parametrize(
    "host", ["a b", "", "192.168..1", "192.168.1", "192.168.1.300", "x" * 70, "-ur", "é", "ur/5"]
)
def test_a_host_that_cannot_be_one_is_an_error_of_the_cell_file(desk: Desk, host: str) -> None:
    desk.edit("calibration/sim.yaml", "host: 127.0.0.50", f"host: '{host}'")
    with pytest.raises(ConfigError, match=r"sim\.yaml:\d+: robot\.settings\.host: .* no IPv4"):
        desk.findings()


@pytest.mark.parametrize("host", ["ur5", "ur_5.line-2.example", "192.168.56.101", "ur-5.local"])
def test_a_host_need_not_answer_to_be_checked(desk: Desk, host: str) -> None:
    desk.edit("calibration/sim.yaml", "host: 127.0.0.50", f"host: {host}")
    assert desk.errors() == []


def pfs_named(desk: Desk, text: str | None) -> None:
    """Name a settings file in the cell file, and write it unless text is None."""
    if text is not None:
        (desk.folder / "calibration" / "one.pfs").write_text(text, encoding="utf-8")
    old = "    host: none"
    desk.edit("calibration/sim.yaml", old, f"{old}\n    pfs: calibration/one.pfs")


def test_a_settings_file_that_is_not_there_is_an_error_of_the_cell_file(desk: Desk) -> None:
    pfs_named(desk, None)
    where = r"sim\.yaml:\d+: camera\.settings\.pfs: .*one\.pfs: No such file"
    with pytest.raises(ConfigError, match=where):
        check_settings_file(desk.cell(), desk.folder)
    (desk.folder / "calibration" / "one.pfs").write_text("Width\t640\n")
    check_settings_file(desk.cell(), desk.folder)


def test_a_camera_that_takes_other_pictures_than_the_model_knows_is_warned_of(desk: Desk) -> None:
    card = load_card(ROOT, "glassfiber/1")
    width, height = card.input.frame_width, card.input.frame_height
    pfs = desk.folder / "one.pfs"
    pfs.write_text(f"# {{pfs}}\nWidth\t{width}\nHeight\t{height}\nPixelFormat\tMono8\n")
    assert list(_check_frames(str(pfs), card)) == []
    pfs.write_text(f"Width\t640\nHeight\t{height}\nPixelFormat\tBGR8\n")
    told = [finding.what for finding in _check_frames(str(pfs), card)]
    assert len(told) == 2
    assert "Width 640, but the model learned from pictures with" in told[0]
    assert "PixelFormat BGR8" in told[1]


def test_the_robot_is_asked_about_every_pose(desk: Desk) -> None:
    loaded = load_recipe(desk.folder, RECIPE)
    (finding,) = check_reach(ArmDouble(), loaded)
    assert finding == Finding("ok", "the robot reaches all 12 poses inside its safety limits")


def test_a_pose_the_robot_refuses_is_named(desk: Desk) -> None:
    desk.edit("recipes/glassfiber.yaml", "[0.064, -0.395, 0.29", "[0.064, -1.395, 0.29")
    findings = list(check_reach(ArmDouble(HOME), load_recipe(desk.folder, RECIPE)))
    assert {f.level for f in findings} == {"error"}
    assert "the robot cannot reach the approach of right-back shot 1" in findings[0].what


def test_a_first_setup_out_of_reach_is_an_error(desk: Desk) -> None:
    desk.edit("recipes/glassfiber.yaml", "[-0.064, -0.505, 0.29", "[-0.064, -1.505, 0.29")
    assert desk.errors() == ["setup left-front: out of the arm's reach"]


def test_picture_limits_are_explained(desk: Desk) -> None:
    (finding,) = [f for f in desk.findings() if "picture" in f.what and "limits" in f.what]
    assert "`station snap` tells the numbers" in finding.what
    limits = "gain_db: 0\npicture_limits: {darkest_mean: 20, saturated_share: 0.02}"
    desk.edit("recipes/glassfiber.yaml", "gain_db: 0", limits)
    (finding,) = [f for f in desk.findings() if f.what.startswith("taken again")]
    assert "darker than 20 of 255 on average, or with more than 2 % of it saturated" in finding.what
    desk.edit("recipes/glassfiber.yaml", "{darkest_mean: 20, saturated_share: 0.02}", "{}")
    with pytest.raises(ConfigError, match="picture_limits: names no limit"):
        desk.findings()


def test_a_view_width_unlike_the_lens_is_told(desk: Desk) -> None:
    assert not [f for f in desk.findings() if "view_width_m" in f.what]
    desk.edit("recipes/glassfiber.yaml", "view_width_m: 0.150", "view_width_m: 0.20")
    (finding,) = [f for f in desk.findings() if "view_width_m" in f.what]
    assert finding.level == "warning"
    assert "200 mm, lens and working distance give 151 mm" in finding.what


def test_consensus_without_the_views_width_is_refused(desk: Desk) -> None:
    desk.edit("recipes/glassfiber.yaml", "view_width_m: 0.150", "# view_width_m: 0.150")
    with pytest.raises(ConfigError, match="consensus needs view_width_m"):
        desk.findings()


def test_a_view_narrower_than_the_offsets_is_refused(desk: Desk) -> None:
    desk.edit("recipes/glassfiber.yaml", "view_width_m: 0.150", "view_width_m: 0.0001")
    with pytest.raises(ConfigError, match="too small for offsets_m"):
        desk.findings()


def warnings(desk: Desk) -> str:
    return "\n".join(f.what for f in desk.findings() if f.level == "warning")


def test_a_threshold_beyond_the_scale_is_refused_and_a_high_one_told(desk: Desk) -> None:
    recipe = "recipes/glassfiber.yaml"
    desk.edit(recipe, "gain_db: 0", "gain_db: 0\nthreshold: 1.4")
    assert "threshold: 1.4 is above 1" in warnings(desk)
    desk.edit(recipe, "threshold: 1.4", "threshold: 0.9")
    assert "threshold" not in warnings(desk)
    desk.edit(recipe, "threshold: 0.9", "threshold: 14")
    with pytest.raises(ConfigError, match="threshold: 14 would accept nearly anything"):
        desk.findings()


def test_a_camera_that_may_repeat_itself_is_told(desk: Desk) -> None:
    assert "noise_expected" not in warnings(desk)
    desk.edit("calibration/sim.yaml", "gate: input", "noise_expected: false\ngate: input")
    assert "noise_expected is false" in warnings(desk)


def test_shots_that_add_nothing_are_told(desk: Desk) -> None:
    recipe = "recipes/glassfiber.yaml"
    desk.edit(recipe, "[0.064, -0.505,", "[-0.064, -0.505,")
    assert "setups left-front and right-front look at one place" in warnings(desk)
    desk.edit(recipe, "- [0.003, 0, 0]", "- [0, 0, 0]")
    assert "setup left-back: two of its offsets_m are the same" in warnings(desk)


def test_consensus_of_one_shot_is_told(desk: Desk) -> None:
    recipe = "recipes/glassfiber.yaml"
    desk.edit(recipe, "  - [0.003, 0, 0]\n", "")
    assert "consensus" not in warnings(desk)
    desk.edit(recipe, "  - [0, 0.003, 0]\n", "")
    assert "there is one shot" in warnings(desk)


def test_a_sheet_that_no_setups_can_cover_is_told(desk: Desk) -> None:
    assert "the setups see" not in warnings(desk)
    desk.edit("recipes/glassfiber.yaml", "sheet_size_m: [0.24, 0.20]", "sheet_size_m: [3, 3]")
    assert "the setups see at most 1% of a sheet of 3 x 3 m" in warnings(desk)


def test_a_recipe_that_left_what_the_model_learned_is_told(desk: Desk) -> None:
    card = load_card(ROOT, "glassfiber/1")
    sheet = card.data.held_out_units[0]
    card = card.model_copy(
        update={"data": card.data.model_copy(update={"folder": "glassfiber/train/good"})}
    )
    desk.edit("recipes/glassfiber.yaml", "gain_db: 0", "gain_db: 0\nmodel: glassfiber/1")
    loaded = load_recipe(desk.folder, RECIPE)
    shots = loaded.recipe.shots(lambda _: HOME)
    taken = tuple(
        capture(n, sheet, setup=s.setup, pose_asked=s.pose, exposure_us=8000.0, gain_db=0.0)
        for n, s in enumerate((s for s in shots if s.number == 1), start=1)
    )
    record = manifest(
        sheet,
        kind="capture",
        captures=taken,
        files={taken[0].file: FileEntry(sha256="a" * 64, bytes=1)},
    )
    place = desk.folder / "data" / RECIPE / "captures" / f"{sheet}.json"
    place.parent.mkdir(parents=True)
    place.write_text(record.model_dump_json(by_alias=True))
    sums = desk.folder / "models" / "glassfiber" / "1" / "images.sha256"
    sums.parent.mkdir(parents=True)

    def told(known: str) -> list[str]:
        sums.write_text(f"{known}  {taken[0].file}\n")
        loaded = load_recipe(desk.folder, RECIPE)
        shots = loaded.recipe.shots(lambda _: HOME)
        return [f.what for f in _check_learned(desk.folder, loaded, shots, card)]

    assert told("a" * 64) == []
    desk.edit("recipes/glassfiber.yaml", "exposure_us: 8000", "exposure_us: 30000")
    desk.edit("recipes/glassfiber.yaml", "gain_db: 0", "gain_db: 6")
    desk.edit("recipes/glassfiber.yaml", "[-0.064, -0.395,", "[-0.064, -0.365,")
    desk.edit("recipes/glassfiber.yaml", "right-front", "right-new")
    exposure, gain, moved, new = told("a" * 64)
    assert exposure.startswith("exposure_us: 30000; ") and exposure.endswith("taken with 8000")
    assert gain.endswith("taken with 0")
    assert moved == "setup left-back: 30 mm from where the model learned"
    assert new == "setup right-new: the model learned nothing from it"
    assert told("b" * 64) == []  # of a sheet with the same id, but another one
