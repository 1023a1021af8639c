"""Check recipe, cell file and model against each other, without moving anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from station.cell import camera_driver, check_drivers
from station.config import LoadedCell
from station.devices import Robot
from station.errors import MoveRefused, StationError
from station.geometry import Pose
from station.kinematics import Joints, forward, inverse
from station.model import golden_scores, start_model
from station.model_card import SUMS, ModelCard, check_files, load_card
from station.motion import LineChecker
from station.recipe import MIN_MODEL_PIXELS, LoadedRecipe, Recipe, Shot, doubt_about
from station.records.dataset import read_manifest
from station.records.sheet import Manifest

DEFAULT_MODEL_WIDTH_PX = 256
VIEW_TOLERANCE = 0.1  # a lens is seldom exactly as long as its name says
SAME_PLACE_M, SAME_PLACE_RAD = 1e-4, 1e-2
MOVED_M = 0.005
EXPOSURE_TOLERANCE, GAIN_TOLERANCE_DB = 0.1, 0.5
# Elbow up, camera down: where the search for joint angles begins.
_TYPICAL = Joints(-1.6, -1.4, -1.8, -1.5, 1.57, 0.0)


class Finding(NamedTuple):
    """One thing checked; an `error` forbids running, a `warning` asks for a look."""

    level: str
    what: str


def check_recipe(workspace: Path, loaded: LoadedRecipe, cell: LoadedCell) -> Iterator[Finding]:
    """Check what can be known without the robot."""
    recipe, config = loaded.recipe, cell.config
    check_drivers(cell, workspace)
    shots = recipe.shots(lambda joints: forward(joints) @ config.tcp)
    yield from _check_lines(shots, recipe, cell)
    yield from _check_speeds(recipe, cell)
    card = None
    if recipe.model is None:
        yield Finding("warning", "no model yet: capture good sheets, then `station train`")
    else:
        try:
            card = load_card(workspace, recipe.model)
            check_files(workspace, card)
        except StationError as error:
            yield Finding("error", str(error))
        else:
            yield Finding("ok", f"model {recipe.model} is there and its file matches its card")
    if card is not None and recipe.threshold is None:
        yield Finding("error", "a model is named but no threshold")
    if (doubt := doubt_about(recipe.threshold)) is not None:
        yield Finding("warning", doubt)
    if not config.noise_expected:
        yield Finding(
            "warning",
            "noise_expected is false: a camera that gives its last picture once more is not "
            "noticed; right where photographs are shown, never with a real camera",
        )
    yield from _check_setups(shots, recipe)
    yield from _check_coverage(recipe, cell)
    if card is not None:
        yield from _check_input(recipe.model_input, card)
        yield from _check_learned(workspace, loaded, shots, card)
        yield from _check_frames(camera_driver(config, workspace).settings.get("pfs"), card)
    if recipe.shadow_model is not None:
        yield _check_shadow(workspace, recipe.shadow_model)
    yield _check_resolution(loaded, cell, card)
    yield _check_pictures(recipe)
    yield from _check_view(loaded.recipe, cell)


def check_model(workspace: Path, name: str, threshold: float | None) -> Iterator[Finding]:
    """Load a model and score its golden images: what a start does, image by image."""
    folder = workspace / "models" / name
    try:
        with start_model(workspace, folder, load_card(workspace, name)) as model:
            for golden in golden_scores(model, folder, threshold):
                apart = f"{abs(golden.score - golden.expected):.2g} apart"
                told = Finding("ok", f"{golden}: {apart}, {golden.allowed:g} is allowed")
                yield told if golden.problem is None else Finding("error", golden.problem)
    except StationError as error:
        yield Finding("error", str(error))


def check_reach(robot: Robot, loaded: LoadedRecipe) -> Iterator[Finding]:
    """Ask the robot whether every pose is reachable and inside its own safety limits."""
    unreachable = 0
    shots = loaded.recipe.shots(robot.forward)
    for shot in shots:
        for name, pose in (("approach", shot.approach), ("pose", shot.pose)):
            if not robot.reachable(pose):
                unreachable += 1
                yield Finding(
                    "error",
                    f"the robot cannot reach the {name} of {shot.setup} shot {shot.number}",
                )
    if not unreachable:
        yield Finding("ok", f"the robot reaches all {len(shots)} poses inside its safety limits")


def _check_lines(shots: list[Shot], recipe: Recipe, cell: LoadedCell) -> Iterator[Finding]:
    config = cell.config
    lines = LineChecker(config.motion, config.tcp)
    place = shots[0].approach
    joints = inverse(place @ config.tcp.inverse(), recipe.setups[0].joints_rad or _TYPICAL)
    if joints is None:
        yield Finding("error", f"setup {shots[0].setup}: out of the arm's reach")
        return
    try:
        lines.check_route(place, joints, recipe.route(shots))
    except MoveRefused as error:
        yield Finding("error", error.problem)
        return
    yield Finding(
        "ok", f"{len(shots)} shots: every line is inside the workspace and the arm's reach"
    )


def _check_speeds(recipe: Recipe, cell: LoadedCell) -> Iterator[Finding]:
    """Tell what MotionGuard will hold back: the arm obeys the cell file, whatever a recipe asks."""
    limits = cell.config.motion
    for key, limit in (
        ("travel_speed_m_s", limits.speed_limit_m_s),
        ("shot_speed_m_s", limits.speed_limit_m_s),
        ("acceleration_m_s2", limits.acceleration_limit_m_s2),
    ):
        asked = getattr(recipe, key)
        if asked > limit:
            yield Finding(
                "warning", f"{key}: {asked:g} is above the cell's {limit:g}; the arm goes no faster"
            )


def _check_setups(shots: list[Shot], recipe: Recipe) -> Iterator[Finding]:
    """Tell of shots that add nothing to the others, and of a camera that sees no sheet."""
    firsts = [shot for shot in shots if shot.number == 1]
    for first, second in combinations(firsts, 2):
        if _same_place(first, second):
            what = f"setups {first.setup} and {second.setup} look at one place"
            yield Finding("warning", f"{what}; one of them adds nothing")
    for first in firsts:
        of_setup = [shot for shot in shots if shot.setup == first.setup]
        if (first.pose @ Pose(0.0, 0.0, 1.0, 0.0, 0.0, 0.0)).z > first.pose.z:
            yield Finding("warning", f"setup {first.setup}: the camera looks up")
        if any(_same_place(*pair) for pair in combinations(of_setup, 2)):
            yield Finding("warning", f"setup {first.setup}: two of its offsets_m are the same")
        if recipe.setup_score == "consensus" and len(of_setup) == 1:
            yield Finding(
                "warning",
                f"setup {first.setup}: setup_score is consensus, but there is one shot; a second "
                "offset lets it tell a defect from a glint",
            )


def _same_place(first: Shot, second: Shot) -> bool:
    near = first.pose.distance_m(second.pose) < SAME_PLACE_M
    return near and first.pose.angle_rad(second.pose) < SAME_PLACE_RAD


def _check_coverage(recipe: Recipe, cell: LoadedCell) -> Iterator[Finding]:
    """Tell of setups that together cannot see the whole sheet, however they are placed."""
    view_m = recipe.view_width_m or cell.config.view_width_mm(recipe.working_distance_m) / 1e3
    width_m, height_m = recipe.sheet_size_m
    # A picture is at most as high as it is wide.
    share = len(recipe.setups) * view_m**2 / (width_m * height_m)
    if share < 1:
        yield Finding(
            "warning",
            f"the setups see at most {share:.0%} of a sheet of {width_m:g} x {height_m:g} m; "
            "a defect elsewhere is not found",
        )


def _check_learned(
    workspace: Path, loaded: LoadedRecipe, shots: list[Shot], card: ModelCard
) -> Iterator[Finding]:
    """Hold the recipe against a sheet that the model learned from, where that is still here."""
    try:
        manifest = _learned_sheet(workspace, loaded, card)
    except StationError as error:
        yield Finding("warning", str(error))
        return
    if manifest is None:
        return
    recipe, captured = loaded.recipe, manifest.captures[0]
    told = f"the model learned from pictures such as {manifest.sheet}, taken with"
    if abs(recipe.exposure_us / captured.exposure_us - 1) > EXPOSURE_TOLERANCE:
        yield Finding(
            "warning", f"exposure_us: {recipe.exposure_us:g}; {told} {captured.exposure_us:g}"
        )
    if abs(recipe.gain_db - captured.gain_db) > GAIN_TOLERANCE_DB:
        yield Finding("warning", f"gain_db: {recipe.gain_db:g}; {told} {captured.gain_db:g}")
    places = {capture.setup: capture.pose_asked for capture in reversed(manifest.captures)}
    for shot in shots:
        if shot.number != 1:
            continue
        if shot.setup not in places:
            yield Finding("warning", f"setup {shot.setup}: the model learned nothing from it")
        elif (apart_m := shot.pose.distance_m(places[shot.setup])) > MOVED_M:
            yield Finding(
                "warning",
                f"setup {shot.setup}: {1e3 * apart_m:.0f} mm from where the model learned",
            )


def _learned_sheet(workspace: Path, loaded: LoadedRecipe, card: ModelCard) -> Manifest | None:
    """Return the record of a captured sheet that the model's list of images proves it knows."""
    if card.data.folder != f"{loaded.name}/train/good":
        return None
    captures = workspace / "data" / loaded.name / "captures"
    sums = workspace / "models" / str(loaded.recipe.model) / SUMS
    known = sums.read_text(encoding="utf-8") if sums.is_file() else ""
    for unit in card.data.held_out_units:
        path = captures / f"{unit}.json"
        if path.is_file():
            manifest = read_manifest(path)
            if any(entry.sha256 in known for entry in manifest.files.values()):
                return manifest
    return None


def _check_input(model_input: str, card: ModelCard) -> Iterator[Finding]:
    trained = "whole" if card.input.tiles == 1 else "tiles"
    if trained != model_input:
        yield Finding(
            "error", f"model_input is {model_input}, but the model was trained on {trained}"
        )


def _check_shadow(workspace: Path, name: str) -> Finding:
    try:
        check_files(workspace, load_card(workspace, name))
    except StationError as error:
        return Finding("error", f"shadow_model: {error}")
    return Finding("ok", f"shadow model {name} is there; it is scored, never judged by")


def _check_frames(pfs: str | None, card: ModelCard) -> Iterator[Finding]:
    """Compare the camera's frames with those the model learned from, where a .pfs tells them."""
    if pfs is None:
        return
    text = Path(pfs).read_text(encoding="utf-8", errors="replace")
    nodes = dict(re.findall(r"^(Width|Height|PixelFormat)\t(\w+)", text, re.MULTILINE))
    trained = {"Width": str(card.input.frame_width), "Height": str(card.input.frame_height)}
    for name, value in trained.items():
        if nodes.get(name, value) != value:
            yield Finding(
                "warning",
                f"{pfs} sets {name} {nodes[name]}, but the model learned from pictures with "
                f"{value}: train anew on what the camera takes now",
            )
    kind = "grey" if nodes.get("PixelFormat", "").startswith("Mono") else "color"
    if "PixelFormat" in nodes and kind != card.input.channels:
        yield Finding(
            "warning",
            f"{pfs} sets PixelFormat {nodes['PixelFormat']}, but the model learned from "
            f"{card.input.channels} pictures",
        )


def _check_view(recipe: Recipe, cell: LoadedCell) -> Iterator[Finding]:
    """Hold the recipe's width of a picture, which consensus goes by, against the cell's lens."""
    if recipe.view_width_m is None:
        return
    lens_mm = cell.config.view_width_mm(recipe.working_distance_m)
    told_mm = 1e3 * recipe.view_width_m
    if abs(told_mm / lens_mm - 1) > VIEW_TOLERANCE:
        yield Finding(
            "warning",
            f"view_width_m says {told_mm:.0f} mm, lens and working distance give {lens_mm:.0f} mm; "
            "lay a ruler under the camera",
        )


def _check_pictures(recipe: Recipe) -> Finding:
    """Say which pictures will be taken again."""
    limits = recipe.picture_limits
    if limits is None:
        return Finding(
            "ok",
            "no picture_limits: dark, overexposed and blurred pictures are judged like any other; "
            "`station snap` tells the numbers to choose them by",
        )
    told = []
    if limits.darkest_mean is not None:
        told.append(f"darker than {limits.darkest_mean:g} of 255 on average")
    if limits.saturated_share is not None:
        told.append(f"with more than {100 * limits.saturated_share:g} % of it saturated")
    if limits.least_sharpness is not None:
        told.append(f"less sharp than {limits.least_sharpness:g}")
    return Finding("ok", f"taken again, then no verdict: a picture {', or '.join(told)}")


def _check_resolution(loaded: LoadedRecipe, cell: LoadedCell, card: ModelCard | None) -> Finding:
    width_px = DEFAULT_MODEL_WIDTH_PX if card is None else card.input.width * card.input.tiles
    view_mm = cell.config.view_width_mm(loaded.recipe.working_distance_m)
    pixel_mm = view_mm / width_px
    text = f"{pixel_mm:.2f} mm per model pixel ({view_mm:.0f} mm of sheet on {width_px} pixels)"
    smallest = loaded.recipe.smallest_defect_mm
    if smallest < MIN_MODEL_PIXELS * pixel_mm:
        return Finding(
            "warning",
            f"{text}: the smallest defect of {smallest:g} mm is below {MIN_MODEL_PIXELS} of them; "
            "go closer, add setups or use tiles",
        )
    return Finding("ok", text)
