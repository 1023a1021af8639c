"""The direction of imports: what stands below never sees what stands above."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "station"

GROUND = {"errors", "geometry", "log", "kinematics", "decode"}
# The learning curve needs an AUROC: what only measures stands below what learns.
EVALUATE = {"evaluate", "evaluate.metrics"}
FILES = GROUND | {"strict", "recipe", "config", "records.sheet", "sheet_score"}
# Every part of the station and what of the station it may import; a new module needs a line here.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "states": {"errors"},
    "geometry": set(),
    "log": set(),
    "decode": set(),
    "kinematics": {"geometry"},
    "strict": {"errors"},
    "preset": {"errors", "strict"},
    "detectors": {"errors", "strict", "preset"},
    "recipe": GROUND | {"strict"},
    "config": GROUND | {"strict", "recipe"},
    "sheet_score": {"recipe"},
    "records.sheet": GROUND | {"strict", "recipe", "sheet_score"},
    "image_quality": FILES,
    "golden": FILES,
    "records.history": FILES,
    "records.dataset": FILES | {"records.history"},
    "records.boot": FILES | {"records.dataset"},
    "records.settings": {"errors", "records.dataset"},
    "records.storage": FILES,
    "records.ledger_schema": set(),
    "records.database": {"errors", "records.ledger_schema", "records.storage"},
    "records.ledger": {"errors", "records.database", "records.history", "records.ledger_schema"}
    | {"records.sheet"},
    "records.migrations": {"records.ledger_schema"},
    "records.verify": FILES
    | {"records.dataset", "records.history", "records.ledger", "records.settings"},
    "records.recovery": FILES | {"records.dataset", "records.ledger", "records.verify"},
    "records.why": FILES
    | {"records.dataset", "records.history", "records.ledger", "revisions", "records.settings"}
    | {"records.verify"},
    "records.retention": FILES | {"records.dataset", "records.history", "records.verify"},
    "records.table": FILES | {"records.ledger_schema"},
    "process": set(),
    "worker": {"errors", "process"},
    "devices": FILES | {"worker"},
    "openvino_runtime": FILES,
    "torchscript": FILES | {"openvino_runtime"},
    "model_card": FILES | {"detectors", "golden"},
    "model": FILES | {"worker", "golden", "model_card"},
    "records.session": FILES | {"records.dataset"},
    "records.label": FILES | {"records.dataset"},
    "workspace": FILES | {"records.dataset"},
    "revisions": FILES | {"records.dataset"},
    "doctor": FILES | {"records.dataset", "records.storage"},
    "teach": FILES | {"records.dataset", "devices"},
    "shadow": FILES | {"golden", "records.dataset"},
    "collect": FILES | {"records.dataset", "devices", "golden"},
    "motion": FILES | {"devices"},
    "gate": FILES | {"devices"},
    "cell": FILES | {"devices", "motion", "gate"},
    "check": FILES | {"devices", "motion", "cell", "model", "model_card", "records.dataset"},
    "shots": FILES
    | {"image_quality", "records.dataset", "records.settings", "collect", "motion", "cell"},
    "cycle": FILES
    | {"golden", "shadow", "records.dataset", "records.history", "collect", "cell", "shots"},
    "reference": FILES | {"records.dataset"},
    "present": FILES | {"records.dataset", "cell", "collect", "cycle", "shots"},
    "repeatability": FILES | {"intervals"},
    "control": {"errors", "states", "strict"},
    "systemd": set(),
    "production": FILES | {"records.dataset", "cell", "cycle", "shots", "states"},
    "show": FILES
    | {
        "records.dataset",
        "cycle",
        "learn",
        "reference",
        "repeatability",
    },  # only to annotate; nothing is loaded
    "__main__": {"cli"},
    "intervals": set(),
    "pages.page": FILES | {"records.dataset"},
    "pages.sheet_row": FILES,
    "pages.run_figures": FILES | {"pages.page", "pages.sheet_row"},
    "pages.report": FILES
    | {
        "intervals",
        "heatmap",
        "pages.page",
        "pages.run_figures",
        "pages.sheet_row",
    },
    "bench.cycle": FILES
    | {"records.dataset", "records.ledger", "model", "collect", "cell", "cycle", "shots"}
    | {"bench.far_ends"},
    "bench": {
        "errors",
        "preset",
        "model",
        "model_card",
        "openvino_runtime",
        "torchscript",
        "learn",
        "evaluate",
    }
    | {"records.sheet", "recipe", "sheet_score"},
    "bench.far_ends": {"errors"},
    "bench.camera_injection": FILES | {"devices"},
    "bench.camera_faults": FILES
    | {
        "bench.camera_injection",
        "bench.far_ends",
        "cell",
        "cycle",
        "shots",
        "devices",
        "model",
        "production",
        "records.boot",
        "records.dataset",
    }
    | {"records.ledger", "sim", "states", "workspace"},
    "bench.robot_injection": set(),
    "bench.processes": {"errors", "control", "sim", "bench.far_ends"},
    "bench.faults": {"errors", "workspace", "bench.processes", "bench.robot_injection"}
    | {"records.dataset"},
    "bench.durability": FILES | {"records.dataset", "collect", "devices", "records.ledger"},
    "arguments": set(),
    "pages.run_report": FILES
    | {
        "records.dataset",
        "records.label",
        "records.verify",
        "intervals",
        "pages.report",
        "pages.sheet_row",
    },
    "heatmap": FILES,
    "learn": FILES
    | {
        "records.dataset",
        "golden",
        "model",
        "model_card",
        "torchscript",
        "openvino_runtime",
    }
    | {"preset", "detectors", "evaluate.metrics"},
    "evaluate.metrics": FILES | {"intervals", "model_card"},
    "evaluate": FILES
    | {
        "records.dataset",
        "model",
        "model_card",
        "intervals",
        "detectors",
        "preset",
        "heatmap",
        "learn",
    }
    | {"evaluate.metrics"},
    "pages.evaluation_figures": FILES | {"model_card", "pages.page", *EVALUATE},
    "pages.evaluation_report": FILES
    | {"model_card", "heatmap", "pages.page", "learn", *EVALUATE, "pages.evaluation_figures"},
    "pages.compare_figures": {
        "pages.page",
        "evaluate",
        "pages.evaluation_figures",
    },
    "pages.compare_report": FILES
    | {
        "heatmap",
        "model",
        "pages.page",
        "learn",
        *EVALUATE,
        "pages.evaluation_figures",
        "pages.evaluation_report",
    }
    | {"pages.compare_figures"},
    "pages.network_figure": {"records.dataset", "model_card", "pages.page", "learn"},
    "pages.experiment_report": {
        "pages.page",
        "heatmap",
        *EVALUATE,
        "pages.evaluation_figures",
        "pages.evaluation_report",
    },
    "sim": {"geometry", "kinematics", "recipe", "config", "strict", "errors", "log"},
}
# Folders whose modules stand on different levels, so each has a line of its own.
FOLDERS = {"records", "pages"}
ONLY_IN = {
    "pypylon": {"station/devices/basler.py", "station/devices/basler_exposure.py"},
    "rtde_control": {"station/devices/ur_child.py"},
    "rtde_receive": {"station/devices/ur_link.py"},
    "rtde_io": {"station/devices/ur_child.py"},
    "dashboard_client": set[str](),
    "torch": {"station/torchscript.py"},
    "torchvision": set[str](),
    "timm": set[str](),
    "openvino": {"station/openvino_runtime.py"},
    "nncf": {"station/learn/features/quantise.py"},
}


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "templates" not in p.parts)


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path: Path) -> Iterator[str]:
    """Yield every module a file imports, wherever in it the import stands."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            if node.module in {"station", *(f"station.{folder}" for folder in FOLDERS)}:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(module: str) -> str:
    """Return the part of the station a module belongs to: the longest name that ALLOWED knows."""
    names = module.split(".")
    known = [".".join(names[:n]) for n in range(len(names), 0, -1)]
    return next((name for name in known if name in ALLOWED), names[0])


def own(path: Path) -> str:
    """Return the part of the station a file belongs to."""
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return part(module.removesuffix(".__init__"))


def parts_seen(path: Path) -> set[str]:
    """Return the parts of the station that a file imports."""
    names = {name.removeprefix("station.") for name in imports(path) if "station." in name}
    return {part(name) for name in names if name not in FOLDERS}


def test_nothing_is_allowed_that_nobody_needs() -> None:
    needed = {name: FILES | {name} for name in ALLOWED}
    for path in modules():
        needed.setdefault(own(path), set()).update(parts_seen(path))
    unused = {name: allowed - needed[name] for name, allowed in ALLOWED.items()}
    assert {name: parts for name, parts in unused.items() if parts} == {}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_below_it(path: Path) -> None:
    if own(path) in {"cli", "commands", "__init__", *FOLDERS}:
        return
    assert own(path) in ALLOWED, f"{path}: say in test_layers.py where this module stands"
    seen = parts_seen(path)
    inside = {own(path)} & {"arguments", "bench", "devices", "learn", "evaluate", "sim"}
    assert seen - ALLOWED[own(path)] - inside == set()


def test_only_the_command_line_imports_the_simulator() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if own(path) != "sim" and any(name.startswith("station.sim") for name in imports(path))
    }
    assert found <= {
        "commands/simulate.py",
        "commands/bench.py",
        "bench/camera_faults.py",
        "bench/processes.py",
    }


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_vendor_library_occurs_only_in_its_driver(library: str) -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in modules()
        if any(name.split(".")[0] == library for name in imports(path))
    }
    learning = {name for name in found if name.startswith(("station/learn/", "station/bench/"))}
    allowed = ONLY_IN[library]
    if library in {"torch", "torchvision", "timm"}:
        allowed = allowed | learning
    assert found <= allowed


def test_the_command_line_imports_at_the_top_only_what_every_command_needs() -> None:
    tree = ast.parse((PACKAGE / "cli.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    ours = {node.module for node in top if node.module and node.module.startswith("station")}
    assert ours <= {"station", "station.errors"}


def test_commands_import_torch_only_when_they_run() -> None:
    for path in sorted((PACKAGE / "commands").glob("*.py")):
        top = ast.parse(path.read_text(encoding="utf-8")).body
        names = {n.module or "" for n in top if isinstance(n, ast.ImportFrom)}
        slow = {
            n
            for n in names
            if n.startswith(("station.learn", "station.evaluate", "station.torchscript"))
        }
        assert not slow, path


def test_only_motion_guard_calls_move() -> None:
    found = set()
    for path in modules():
        if own(path) == "sim":
            continue
        for node in nodes(path):
            if isinstance(node, ast.Attribute) and node.attr in {"move", "moveL", "moveJ"}:
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found <= {"motion.py", "devices/ur_child.py"}


def test_nobody_uses_mocks() -> None:
    word = "mo" + "ck"
    for path in [*modules(), *sorted((ROOT / "tests").rglob("*.py"))]:
        assert not any(word in name for name in imports(path)), path


def test_only_the_command_line_prints() -> None:
    printing = set()
    for path in modules():
        if own(path) in {"sim", "learn", "evaluate"}:
            continue
        for node in nodes(path):
            if isinstance(node, ast.Name) and node.id == "print":
                printing.add(own(path))
    assert printing <= {"cli", "commands", "show"}


UNLOCKING = re.compile("unlock.?protective.?stop|close.?safety.?popup|restart.?safety", re.I)


def unlocks(tree: Iterable[ast.AST]) -> bool:
    """Tell whether a name or a text in there could clear a safety stop."""
    words = (
        getattr(node, field, None)
        for node in tree
        for field in ("attr", "id", "name", "arg", "value")
    )
    return any(isinstance(word, str) and UNLOCKING.search(word) for word in words)


def test_nothing_can_clear_a_safety_stop() -> None:
    """Neither a call of ur_rtde nor a line to the dashboard: a person does it at the pendant."""
    outside = [path for path in modules() if own(path) != "sim"]  # there the robot answers them
    assert [path for path in outside if unlocks(nodes(path))] == []


@pytest.mark.parametrize(
    "text",
    [
        "dashboard.unlockProtectiveStop()",
        "getattr(robot, 'restartSafety')()",
        "dashboard(host, 'unlock protective stop')",
        "send(f'close safety popup {now}')",
    ],
)
def test_whatever_would_clear_one_is_found(text: str) -> None:
    assert unlocks(ast.walk(ast.parse(text)))
