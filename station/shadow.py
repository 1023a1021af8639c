"""A second model beside the one that judges: its scores are kept, nothing is decided by them.

A sheet is offered once it has been told and the arm is back. It is scored from its record, in a
thread of its own, by a child that takes what others leave of the processor. One sheet may wait
while another is scored; those that come meanwhile are skipped, so nothing ever waits for it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from station.errors import DatasetError, StationError
from station.golden import Predictor
from station.records.dataset import read_image
from station.records.sheet import Manifest

NICENESS = 19  # of its child: the lowest claim to the processor there is
END_S = 10.0  # that the end of a run waits for the last sheets
CLOSE_S = 1.0
POLL_S = 0.02

log = structlog.get_logger()

Row = dict[str, Any]


class Shadow:
    """Scores recorded sheets when there is time; offered and asked by one thread only."""

    def __init__(
        self, predictor: Predictor, model: str, sha256: str, record: Callable[[Sequence[Row]], None]
    ) -> None:
        self._predictor = predictor
        self._model = {"model": model, "model_sha256": sha256}
        self._record = record
        self._waiting: queue.Queue[tuple[Manifest, Path]] = queue.Queue(maxsize=1)
        self._scored: queue.SimpleQueue[list[Row]] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._counts = {"scored": 0, "skipped": 0}
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, manifest: Manifest, folder: Path) -> None:
        """Have a recorded sheet scored if there is time; record what has been scored since."""
        self._keep()
        if not self._thread.is_alive():
            return  # it has said why
        try:
            self._waiting.put_nowait((manifest, folder))
        except queue.Full:
            self._counts["skipped"] += 1
            log.info("shadow.skipped", sheet=manifest.sheet)

    def finish(self, stop: threading.Event) -> None:
        """Wait a while for the sheets that were offered, unless asked to stop."""
        end = time.monotonic() + END_S
        while self._waiting.unfinished_tasks and self._thread.is_alive():
            if stop.is_set() or time.monotonic() > end:
                break
            time.sleep(POLL_S)
        self._keep()

    def close(self) -> None:
        """Give up what is not scored yet; record the rest."""
        self._ended.set()
        self._thread.join(CLOSE_S)
        self._keep()
        log.info("shadow.closed", **self._model, **self._counts)

    def _keep(self) -> None:
        with suppress(queue.Empty):
            while True:
                rows = self._scored.get_nowait()
                try:
                    self._record(rows)
                except DatasetError as error:  # no sheet depends on it
                    log.error("shadow.unrecorded", reason=str(error))
                else:
                    self._counts["scored"] += 1

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                manifest, folder = self._waiting.get(timeout=POLL_S)
            except queue.Empty:
                continue
            try:
                rows = self._score(manifest, folder)
            except StationError as error:
                log.error("shadow.ended", reason=str(error), advice="clear starts it anew")
                return
            if rows:
                self._scored.put(rows)
            self._waiting.task_done()

    def _score(self, manifest: Manifest, folder: Path) -> list[Row]:
        rows: list[Row] = []
        for capture in manifest.captures:
            if self._ended.is_set():
                return []  # whole sheets only
            score = self._predictor.predict(read_image(folder / capture.file)).score
            place = {"sheet": manifest.sheet, "setup": capture.setup, "shot": capture.shot}
            rows.append({**place, **self._model, "score": score})
        return rows


@contextmanager
def shadowing(
    predictor: Predictor, model: str, sha256: str, record: Callable[[Sequence[Row]], None]
) -> Iterator[Shadow]:
    """Let a model score in the shadow for the length of the block."""
    shadow = Shadow(predictor, model, sha256, record)
    try:
        yield shadow
    finally:
        shadow.close()
