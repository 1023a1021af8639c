"""Bad inputs 116 to 124 that need a process: closed outputs, other locales, places not writable."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from simulator import ROOT

from station import workspace as template

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # linux/prctl.h, linux/capability.h
CHECK = "check --recipe glassfiber"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands") / "ws"
    template.init(folder)
    return folder


def station(folder: Path, command: str, **options: Any) -> tuple[int, str, str]:
    """Run a command with nobody at the keyboard."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    ended = subprocess.run(
        [sys.executable, "-m", "station", *command.split()],
        cwd=folder,
        env=environment,
        timeout=60,
        check=False,
        **{**streams, **options},
    )
    out, err = ((text or b"").decode() for text in (ended.stdout, ended.stderr))
    assert "Traceback" not in err, err
    return ended.returncode, out, err


def obey_permissions() -> None:
    """Root may write everywhere: give that up before the command begins."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


@pytest.mark.bad_input("120-reader-gone")
def test_a_reader_that_has_gone_ends_the_command_silently(workspace: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code, _, err = station(workspace, CHECK, stdout=writing)
    os.close(writing)
    assert (code, err) == (1, "")


@pytest.mark.bad_input("120-closed")
def test_a_closed_output_changes_nothing(workspace: Path) -> None:
    code, _, err = station(workspace, CHECK, stdout=None, preexec_fn=lambda: os.close(1))
    assert (code, err) == (0, "")


@pytest.mark.bad_input("120-closed-error")
def test_no_message_lands_in_the_output_where_standard_error_is_closed(workspace: Path) -> None:
    closed = {"stderr": None, "preexec_fn": lambda: os.close(2)}
    code, out, _ = station(workspace, "check --recipe nope --json", **closed)
    assert (code, out) == (2, "")


@pytest.mark.bad_input("120-full")
def test_an_output_without_room_is_told(workspace: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        code, _, err = station(workspace, CHECK, stdout=full)
    assert (code, err) == (5, "station: output: No space left on device\n")


@pytest.mark.bad_input("121-no-terminal")
def test_without_a_terminal_there_is_no_colour_and_no_progress(workspace: Path) -> None:
    for command, expected in ((CHECK, 0), ("verify", 0), ("inspect", 2)):
        code, out, err = station(workspace, command)
        assert code == expected, err
        assert "\x1b" not in out + err
        assert "\r" not in out + err


@pytest.mark.bad_input("123-lang-c")
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_locale_without_umlauts_is_no_traceback(workspace: Path, locale: str) -> None:
    text = (workspace / "calibration" / "cell.yaml").read_text(encoding="utf-8")
    box = "[{name: Säule, min_m: [-0.1, -0.6, 0], max_m: [0.1, -0.3, 0.5]}]"
    cell = workspace / "calibration" / "keep-out.yaml"
    cell.write_text(text.replace("keep_out: []", f"keep_out: {box}"), encoding="utf-8")
    spoken = {"LC_ALL": locale, "LANG": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = {**spoken, "STATION_CELL": str(cell)}
    code, out, err = station(workspace, CHECK, env=environment)
    assert code == 2, err
    assert ("Säule" if "UTF" in locale else r"S\xe4ule") in out


@pytest.mark.bad_input("124-read-only")
def test_a_workspace_that_may_not_be_written_is_told(workspace: Path) -> None:
    inspect = "inspect --recipe glassfiber --sheets 1"
    for command, expected in ((CHECK, 0), ("use glassfiber", 5), (inspect, 5)):
        workspace.chmod(0o555)
        code, _, err = station(workspace, command, preexec_fn=obey_permissions)
        workspace.chmod(0o755)
        assert code == expected, err
        if expected:
            assert err.count("\n") == 1
            assert "ermission denied" in err


@pytest.mark.bad_input("124-gone")
def test_a_directory_that_was_removed_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code, _, err = station(gone, CHECK, preexec_fn=gone.rmdir)
    assert code == 2
    assert "is no workspace" in err
