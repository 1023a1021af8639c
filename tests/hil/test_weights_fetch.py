"""Fetching weights over HTTP; a loopback server stands for the hub."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from station.cli import main
from station.errors import ModelError
from station.learn.features.weights import WEIGHTS, Weights, fetch, store

CONTENT = bytes(range(256)) * 5000


class Hub(BaseHTTPRequestHandler):
    """Serves the content whole, cut short, altered, or not at all."""

    def do_GET(self) -> None:
        if self.path == "/absent":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        answers = {"/whole": CONTENT, "/short": CONTENT[:-1000], "/other": CONTENT[::-1]}
        self.wfile.write(answers[self.path])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATION_WEIGHTS", str(tmp_path / "store"))


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def weights(url: str) -> Weights:
    return Weights("net.pth", hashlib.sha256(CONTENT).hexdigest(), 1.3, "none", url=url)


def test_a_whole_file_is_stored_and_progress_told(hub: str) -> None:
    told: list[int] = []
    path = fetch("net", weights(f"{hub}/whole"), told.append)
    assert path.read_bytes() == CONTENT
    assert told == sorted(told)
    assert told[-1] == len(CONTENT)
    assert [p.name for p in store().iterdir()] == ["net.pth"]


def test_the_command_fetches_into_the_store(
    hub: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(WEIGHTS, "resnet18", weights(f"{hub}/whole"))
    assert main(["weights", "fetch", "resnet18", "--json"]) == 0
    expected = {"backbone": "resnet18", "path": str(store() / "net.pth")}
    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.parametrize("page", ["short", "other"])
def test_wrong_content_is_refused_and_nothing_is_left(hub: str, page: str) -> None:
    with pytest.raises(ModelError, match=rf"/{page}: sha256 is .*: truncated or another file"):
        fetch("net", weights(f"{hub}/{page}"), lambda _: None)
    assert list(store().iterdir()) == []


def test_a_page_that_is_not_there_is_named(hub: str) -> None:
    with pytest.raises(ModelError, match=r"/absent: not found; fetch it elsewhere, then `station"):
        fetch("net", weights(f"{hub}/absent"), lambda _: None)


def test_offline_names_the_url_and_the_way_around() -> None:
    with pytest.raises(ModelError) as caught:
        fetch("net", weights("http://127.0.0.1:1/net.pth"), lambda _: None)
    assert str(caught.value) == (
        "http://127.0.0.1:1/net.pth: connection refused; fetch it elsewhere, then "
        "`station weights add FILE`"
    )
    assert list(store().iterdir()) == []
