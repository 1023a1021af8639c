"""What doctor says of a computer whose kernel files lie in a folder of the test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from station import cli, doctor
from station import workspace as template
from station.config import CellConfig, load_cell
from station.records.storage import Free

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cell() -> CellConfig:
    return load_cell(ROOT / "calibration" / "sim.yaml").config


def kernel(root: Path, **files: str) -> Path:
    """Write kernel files; `__` in a name stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def card(root: Path, name: str, mtu: int) -> None:
    folder = root / "sys" / "class" / "net" / name
    (folder / "device").mkdir(parents=True)
    (folder / "mtu").write_text(f"{mtu}\n")


def test_a_card_with_small_packets_and_buffers_is_told_with_the_command(tmp_path: Path) -> None:
    card(tmp_path, "cam0", 1500)
    kernel(tmp_path, proc__sys__net__core__rmem_max="212992")
    mtu, rmem = doctor.network(tmp_path)
    assert (mtu.level, mtu.do) == ("warn", "ip link set dev cam0 mtu 9000")
    assert (rmem.level, rmem.do) == ("warn", "sysctl -w net.core.rmem_max=33554432")


def test_a_card_that_is_set_is_fine_and_others_are_not_asked(tmp_path: Path) -> None:
    card(tmp_path, "cam0", 9000)
    card(tmp_path, "wifi0", 1500)
    (tmp_path / "sys/class/net/wifi0/wireless").mkdir()
    (tmp_path / "sys/class/net/lo").mkdir()  # no device behind it
    kernel(tmp_path, proc__sys__net__core__rmem_max="33554432")
    assert {f.level for f in doctor.network(tmp_path)} == {"ok"}


def test_no_card_needs_nothing(tmp_path: Path) -> None:
    (only,) = doctor.network(tmp_path)
    assert only.level == "ok"


def test_a_card_that_does_not_tell_its_buffers_is_left_out() -> None:
    assert doctor.ring("lo") == (0, 0)


@pytest.mark.parametrize(("setting", "level"), [("16", "warn"), ("1000", "ok"), ("0", "ok")])
def test_the_kernels_usb_buffer(tmp_path: Path, setting: str, level: str) -> None:
    kernel(tmp_path, sys__module__usbcore__parameters__usbfs_memory_mb=setting)
    (found,) = doctor.usb(tmp_path)
    assert found.level == level


def test_a_camera_that_may_not_be_opened_fails(tmp_path: Path) -> None:
    kernel(
        tmp_path,
        **{
            "sys__module__usbcore__parameters__usbfs_memory_mb": "1000",
            "sys__bus__usb__devices__2-1__idVendor": "2676",
            "sys__bus__usb__devices__2-1__busnum": "2",
            "sys__bus__usb__devices__2-1__devnum": "7",
            "sys__bus__usb__devices__2-1__serial": "24001234",
            "sys__bus__usb__devices__2-2__idVendor": "046d",  # somebody's mouse
        },
    )
    _, camera = doctor.usb(tmp_path)
    assert (camera.level, "24001234" in camera.what) == ("fail", True)
    kernel(tmp_path, **{"dev__bus__usb__002__007": ""})
    _, camera = doctor.usb(tmp_path)
    assert camera.level == "ok"


def test_a_processor_that_is_slow_or_saves_power_is_told(tmp_path: Path) -> None:
    kernel(
        tmp_path,
        proc__cpuinfo="flags\t\t: fpu sse2",
        sys__devices__system__cpu__cpu0__cpufreq__scaling_governor="powersave",
    )
    found = {f.what: f for f in doctor.processor(tmp_path)}
    assert any("AVX2" in what and f.level == "warn" for what, f in found.items())
    assert any(f.do == "cpupower frequency-set -g performance" for f in found.values())


def test_a_computer_busy_with_other_work_is_told(tmp_path: Path) -> None:
    for load, busy in (("0.10", False), ("99.50", True)):
        kernel(tmp_path, proc__loadavg=f"{load} 0.10 0.10 1/99 4711")
        found = [f for f in doctor.processor(tmp_path) if "at once" in f.what]
        assert [f.level for f in found] == ["warn"] * busy
        assert all(f.what.startswith(load) and f.do for f in found)


def test_little_memory_and_a_coarse_clock_are_told(tmp_path: Path) -> None:
    kernel(
        tmp_path,
        proc__meminfo="MemTotal: 4000000 kB\nMemAvailable: 1000000 kB",
        sys__devices__system__clocksource__clocksource0__current_clocksource="acpi_pm",
    )
    assert next(doctor.memory(tmp_path)).level == "warn"
    assert list(doctor.clock(tmp_path))[-1].do == "boot with clocksource=tsc"


def test_a_full_dev_shm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev" / "shm").mkdir(parents=True)
    for gb, little in ((1.0, False), (0.01, True)):
        monkeypatch.setattr(doctor, "free", lambda _, gb=gb: Free(gb, None))
        found = [f for f in doctor.memory(tmp_path) if "handed to the model" in f.what]
        assert [f.level for f in found] == ["warn"] * little


def test_a_disk_with_less_room_than_the_cell_file_wants_fails(
    tmp_path: Path, cell: CellConfig
) -> None:
    disk = cell.disk.model_copy(update={"start_free_gb": 1e9, "warn_free_gb": 1e9})
    room, speed = doctor.disk(tmp_path, cell.model_copy(update={"disk": disk}))
    assert room.level == "fail"
    assert "fsync" in speed.what
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_workspace_that_cannot_be_written_fails() -> None:
    found = list(doctor.folders(Path("/proc/self")))
    assert [f.level for f in found] == ["fail"] * 4


def test_the_command_ends_with_1_where_something_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template.init(tmp_path)
    cell = tmp_path / "calibration" / "cell.yaml"
    arguments = ["doctor", "--workspace", str(tmp_path), "--cell", str(cell), "--json"]
    before = sorted(tmp_path.rglob("*"))
    code = cli.main(arguments)
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == any(f["level"] == "fail" for f in findings)
    assert {"level", "what", "do"} == set(findings[0])
    assert sorted(tmp_path.rglob("*")) == before
    cell.write_text(cell.read_text() + f"disk: {{start_free_gb: {10**9}, warn_free_gb: {10**9}}}\n")
    assert cli.main(arguments) == 1
    assert list((tmp_path / "data").iterdir()) == []
