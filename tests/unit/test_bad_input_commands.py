"""Bad inputs on the command line, pictures at a second look, and clocks: 75, 76, 95, 116, 117."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bad_input import Desk
from recorded import record, sheet_id
from sheets import WHEN, picture

from station.cli import main
from station.errors import DatasetError
from station.learn.images import read_image as read_to_learn
from station.records.dataset import Dataset, read_image, save_image
from station.records.ledger import open_ledger
from station.records.verify import verify


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "ws")


@pytest.mark.parametrize(
    "line",
    ["check --recipy glassfiber", "chekc", "inspect --sheets", "verify --rebuild now"],
    ids=["116-option", "116-command", "116-no-value", "116-too-many-words"],
)
def test_an_unknown_word_ends_with_usage(
    line: str, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    before = desk.content()
    with pytest.raises(SystemExit) as ended:
        main([*line.split(), "--workspace", str(desk.folder)])
    assert ended.value.code == 2
    usage, *_, last = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: station")
    assert "error: " in last
    assert desk.content() == before


@pytest.mark.parametrize(
    ("command", "place", "says"),
    [
        ("evaluate --dataset d --model glassfiber/1 --out {}", "out/a", "not a file that could be"),
        ("snap --out {}.png", "out.png/a", "not a file that could be"),
        ("report --run 1 --out {}", "out/a", "not a file that could be"),
        ("evaluate --root {0} --model m --out {0}", "out", "not a folder"),
    ],
    ids=["117-page", "117-picture", "117-report", "117-file-for-a-folder"],
)
def test_what_is_there_is_not_replaced_by_something_else(
    command: str, place: str, says: str, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.write(place, "kept")
    before = desk.content()
    asked = command.format(desk.folder / "out")
    assert main([*asked.split(), "--workspace", str(desk.folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert desk.content() == before


def png_of_size(width: int, height: int) -> bytes:
    """Write a PNG that says it is large and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("read", [read_image, read_to_learn], ids=["075-records", "075-learning"])
def test_a_small_file_of_a_huge_picture_is_refused(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_size(60_000, 60_000))
    with pytest.raises(DatasetError, match=r"bomb\.png: not a readable"):
        read(path)


@pytest.mark.parametrize("read", [read_image, read_to_learn], ids=["076-records", "076-learning"])
@pytest.mark.parametrize("damage", ["cut", "crc"])
def test_a_damaged_picture_is_never_taken_for_a_whole_one(
    tmp_path: Path, read: Callable[[Path], object], damage: str
) -> None:
    path = tmp_path / "a.png"
    save_image(path, picture(1, 200, 150))
    content = bytearray(path.read_bytes())
    if damage == "crc":
        content[len(content) // 2] ^= 255
    path.write_bytes(content if damage == "crc" else content[: len(content) // 2])
    with pytest.raises(DatasetError, match=r"a\.png: "):
        read(path)


@pytest.mark.bad_input("095-clock-set-back")
def test_a_clock_that_jumps_changes_neither_order_nor_ids(tmp_path: Path) -> None:
    with open_ledger(tmp_path, None) as ledger:
        dataset = Dataset(tmp_path, "glassfiber", ledger)
        clocks = [WHEN, WHEN - timedelta(hours=1), datetime(1970, 1, 1, tzinfo=UTC), WHEN]
        for number, started in enumerate(clocks, start=1):
            record(dataset, number, started_at=started, finished_at=started)
        assert [path.name for path in dataset.folders()] == [sheet_id(n) for n in (1, 2, 3, 4)]
        proof = verify(tmp_path, ledger, ["glassfiber"], "s1", lambda _: None)
    assert [p.what for p in proof.problems if not p.what.startswith("ledger: outcome")] == []
    assert proof.sheets == 4
