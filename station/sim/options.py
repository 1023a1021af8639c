"""Everything the simulated far ends can be told on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SimOptions:
    """One flat set of options for the controller, the scene and the command run beside them."""

    address: str = "127.0.0.50"
    """Loopback address of the controller: ports are fixed, so simulators differ by address."""
    speed: float = 1.0
    """Factor on the arm's motion only; part handshake and timeouts stay in clock time."""
    exchange: float = 0.3
    """Seconds from busy's fall until the next sheet is laid."""
    journal: Path | None = None
    truth: Path | None = None
    """Folder that receives each picture's label and mask, named by the picture's sha256."""
    seed: int = 0
    defect_rate: float = 0.4
    defect: str | None = None
    """Only this kind of defect, when set."""
    sheets: Path | None = None
    """Folder of photographs to lay on the table in place of rendered sheets."""
    show_as: str = "exact"
    size: tuple[int, int] | None = None
    """Width and height of the pictures in pixels; the truth file's own size when not set."""
    exposure_us: float = 8000.0
    gain_db: float = 0.0
    series: str = "cb3"
    cell: Path | None = None
    """Cell file for the command; `calibration/sim.yaml` under `workspace` when not set."""
    workspace: Path = field(default_factory=Path.cwd)
