"""Fixtures of the tests with real processes; a module that uses `station` defines `sim`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulator import ROOT, Simulator
from station_process import Inspection, Station


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Simulator]]:
    """Return a function that starts a simulator: `simulator("--speed", "5")`."""
    folder = tmp_path_factory.mktemp("simulator")
    started: list[Simulator] = []

    def start(*arguments: str) -> Simulator:
        started.append(Simulator(folder, list(arguments)))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def station(sim: Simulator, tmp_path: Path) -> Station:
    """A fresh workspace and a controller cleared of what the last test did to it."""
    sim.clear()
    return Station(tmp_path / "ws", sim)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy models."""
    folder = tmp_path_factory.mktemp("models")
    script = Path(__file__).with_name("toy_models.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(script), str(folder)], check=True, env=environment)
    return folder / "models"


@pytest.fixture
def inspection(station: Station, models: Path) -> Inspection:
    """A station that inspects with them."""
    return Inspection(station, models)
