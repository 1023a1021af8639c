"""A capture session: how many sheets were asked for and how many are there, across restarts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from station.errors import DatasetError
from station.records.dataset import Dataset, write_durably
from station.strict import Strict


class _State(Strict):
    label: str
    split: str
    sheets: int
    done: int


class CaptureSession(NamedTuple):
    """One `station capture --sheets N`, continued by the same command after an interruption."""

    path: Path
    label: str
    split: str
    sheets: int
    done: int

    @classmethod
    def resume(
        cls, dataset: Dataset, label: str, split: str, sheets: int, *, restart: bool
    ) -> CaptureSession:
        """Take up the session of the same label, split and number of sheets, or begin one."""
        path = dataset.root / "captures" / ".session"
        fresh = cls(path, label, split, sheets, 0)
        if restart or not path.exists():
            return fresh
        try:
            state = _State.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise DatasetError(f"{path}: damaged; begin anew with --restart") from error
        same = (state.label, state.split, state.sheets) == (label, split, sheets)
        return fresh._replace(done=state.done) if same else fresh

    @property
    def left(self) -> int:
        """Sheets still to take."""
        return self.sheets - self.done

    def advance(self, *, complete: bool) -> CaptureSession:
        """Note one more sheet; an incomplete one does not count."""
        session = self._replace(done=self.done + complete)
        if session.left:
            state = _State(
                label=self.label, split=self.split, sheets=self.sheets, done=session.done
            )
            write_durably(self.path, state.model_dump_json().encode())
        else:
            self.path.unlink(missing_ok=True)
        return session
