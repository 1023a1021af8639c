"""One sheet being collected: its pictures are saved and scored in threads while the arm travels."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from station.devices import RobotStatus
from station.errors import DatasetError, StationError
from station.golden import Predictor
from station.recipe import Shot
from station.records.dataset import save_image, save_map
from station.records.sheet import Capture, FileEntry, Frame, Image, Prediction, pixels_sha256
from station.sheet_score import Map, ShotScore

QUEUE_FRAMES = 8  # frames waiting to be saved or scored; the loop blocks when there are more
SAVERS = 2

KeepMap = Callable[[Path, Map], FileEntry]


class Taken(NamedTuple):
    """A shot as it was taken."""

    status: RobotStatus
    frame: Frame
    retaken: tuple[str, ...] = ()
    """What was wrong with the pictures taken before it at the same place."""


class Collected(NamedTuple):
    """What became of a sheet's shots."""

    captures: tuple[Capture, ...]
    files: dict[str, FileEntry]
    shots: tuple[ShotScore, ...]
    problems: tuple[str, ...]
    scoring_s: float
    saving_s: float


NOTHING = Collected((), {}, (), (), 0.0, 0.0)


class _Saved(NamedTuple):
    sha256: str
    entry: FileEntry
    seconds: float


class _Scored(NamedTuple):
    prediction: Prediction
    map_file: str
    entry: FileEntry
    seconds: float


class _Pending(NamedTuple):
    file: str
    shot: Shot
    taken: Taken
    saved: Future[_Saved]
    scored: Future[_Scored] | None


class Collector:
    """The threads that save and score, kept for a whole run."""

    def __init__(self, predictor: Predictor | None) -> None:
        self._predictor = predictor
        self._savers = ThreadPoolExecutor(SAVERS, thread_name_prefix="saver")
        self._scorer = ThreadPoolExecutor(1, thread_name_prefix="scorer")
        self._slots = threading.Semaphore(QUEUE_FRAMES)

    def sheet(self, sheet: str, folder: Path) -> SheetCollection:
        """Begin to collect a sheet."""
        return SheetCollection(self, sheet, folder)

    def close(self) -> None:
        """Let the savers finish what they hold; a score that nobody waits for may never come."""
        self._savers.shutdown()
        self._scorer.shutdown(wait=False, cancel_futures=True)

    def submit(self, path: Path, shot: Shot, taken: Taken, keep_map: KeepMap) -> _Pending:
        """Queue one frame to be saved at `path`; blocks while too many are waiting."""
        frame = taken.frame
        self._slots.acquire()
        saved = self._savers.submit(_save, path, frame.image)
        saved.add_done_callback(lambda _: self._slots.release())
        scored = None
        if self._predictor is not None:
            self._slots.acquire()
            scored = self._scorer.submit(_score, self._predictor, path, frame.image, keep_map)
            scored.add_done_callback(lambda _: self._slots.release())
        return _Pending(path.name, shot, taken, saved, scored)


class SheetCollection:
    """The shots of one sheet, in order."""

    def __init__(self, collector: Collector, sheet: str, folder: Path) -> None:
        self._collector = collector
        self._sheet = sheet
        self._folder = folder
        self._pending: list[_Pending] = []
        self._writing = threading.Lock()
        self._abandoned = False

    def add(self, shot: Shot, taken: Taken) -> None:
        """Take over one frame."""
        file = f"{self._sheet}_{shot.setup}_{shot.number}.png"
        self._pending.append(
            self._collector.submit(self._folder / file, shot, taken, self._keep_map)
        )

    def _keep_map(self, path: Path, anomaly_map: Map) -> FileEntry:
        with self._writing:
            if self._abandoned:
                raise DatasetError("the sheet was given up before it was scored")
            return save_map(path, anomaly_map)

    def abandon(self) -> Collected:
        """Wait until every frame is on disk; nobody judges the sheet, so no score is waited for."""
        with self._writing:  # a map that is being written is written to its end
            self._abandoned = True
        for index, pending in enumerate(self._pending):
            if pending.scored is not None and not pending.scored.done():
                pending.scored.cancel()
                _map_of(self._folder / pending.file).unlink(missing_ok=True)
                # Asked once: a score that came a moment later would name the map that went.
                self._pending[index] = pending._replace(scored=None)
        return self.finish()

    def finish(self) -> Collected:
        """Wait until every frame is on disk and scored.

        A frame that could not be saved is left out, so the sheet is incomplete; one that could
        not be scored stays, without a score, so the sheet is rejected.
        """
        captures: list[Capture] = []
        shots: list[ShotScore] = []
        files: dict[str, FileEntry] = {}
        problems: list[str] = []
        scoring_s = saving_s = 0.0
        for pending in self._pending:
            saved, scored, problem = _results(pending)
            if saved is None:
                problems.append(str(problem))  # names the file itself
                if scored is not None:  # a map without its picture is no evidence
                    (self._folder / scored.map_file).unlink(missing_ok=True)
                continue
            if problem:
                problems.append(f"{pending.file}: {problem}")
            saving_s += saved.seconds
            files[pending.file] = saved.entry
            if scored is not None:
                scoring_s += scored.seconds
                files[scored.map_file] = scored.entry
            capture = _capture(pending, saved, scored, problem)
            captures.append(capture)
            anomaly_map = None if scored is None else scored.prediction.anomaly_map
            shots.append(ShotScore(capture.setup, capture.score, anomaly_map))
        return Collected(
            tuple(captures),
            files,
            tuple(shots),
            tuple(problems),
            scoring_s,
            saving_s,
        )


def _results(pending: _Pending) -> tuple[_Saved | None, _Scored | None, str | None]:
    """Wait for both threads' work on a frame; a failure of either comes back as text."""
    scored = problem = None
    if pending.scored is not None:
        try:
            scored = pending.scored.result()
        except StationError as error:
            problem = str(error)
    try:
        return pending.saved.result(), scored, problem
    except StationError as error:
        return None, scored, str(error)


def _save(path: Path, image: Image) -> _Saved:
    started = time.perf_counter()
    entry = save_image(path, image)
    return _Saved(pixels_sha256(image), entry, time.perf_counter() - started)


def _score(predictor: Predictor, path: Path, image: Image, keep_map: KeepMap) -> _Scored:
    started = time.perf_counter()
    prediction = predictor.predict(image)
    place = _map_of(path)
    entry = keep_map(place, prediction.anomaly_map)
    return _Scored(prediction, place.name, entry, time.perf_counter() - started)


def _map_of(picture: Path) -> Path:
    return picture.with_name(f"{picture.stem}_map.npy")


def _capture(
    pending: _Pending, saved: _Saved, scored: _Scored | None, problem: str | None
) -> Capture:
    (status, frame, retaken), shot = pending.taken, pending.shot
    height, width = frame.image.shape[:2]
    score = None if scored is None else scored.prediction.score
    if score is not None and not math.isfinite(score):
        score, problem = None, f"the model answered {score}"
    return Capture(
        file=pending.file,
        pixels_sha256=saved.sha256,
        width=width,
        height=height,
        setup=shot.setup,
        shot=shot.number,
        pose_asked=shot.pose,
        pose=status.pose,
        joints_rad=status.joints,
        exposure_us=frame.exposure_us,
        gain_db=frame.gain_db,
        frame=frame.number,
        taken_at=frame.taken_at,
        retaken=retaken,
        score=score,
        map_file=None if scored is None else scored.map_file,
        problem=problem,
    )
