"""Tests run in a process prepared as a command's is; ids carry the numbers of bad inputs."""

from __future__ import annotations

import hypothesis
import pytest

from station import process

process.prepare()
# How long one example takes says more about what else the computer does than about the code.
hypothesis.settings.register_profile("station", deadline=None)
hypothesis.settings.load_profile("station")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "bad_input(*ids): proves entries of docs/bad-input.md, each `number-words`"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Put the catalogue's numbers into the id of a test that is marked with it."""
    for marker in metafunc.definition.iter_markers("bad_input"):
        metafunc.fixturenames.append("bad_input_id")
        metafunc.parametrize("bad_input_id", [""], ids=["+".join(marker.args)])
