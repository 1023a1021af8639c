"""Exposure time and gain of a Basler camera, under the names that its generation gives them.

Nodes are asked for and used at once, never kept: pylon ends the process where one is touched after
the device is gone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pypylon import pylon

from station.errors import DeviceError

# The first name a camera has is used: SFNC 2 (USB, ace 2) before the classic GigE models.
TIME_NODES = ("ExposureTime", "ExposureTimeAbs")
GAIN_NODES = ("Gain", "GainRaw")

# Where a node names no increment the camera still rounds, by its line time or its amplifier's
# steps. Both bounds are about one percent of brightness.
TIME_TOLERANCE = 0.01
TIME_STEP_US = 1.0  # cameras that name an increment of 0.1 us may still hold whole ones
GAIN_TOLERANCE_DB = 0.1


class Exposure(NamedTuple):
    """What the camera itself does for the brightness of a picture."""

    time_us: float
    gain_db: float


def check_possible(camera: Any, device: str, asked: Exposure) -> None:
    """Refuse what this camera cannot hold; nothing is set."""
    time = _first(camera, device, TIME_NODES)
    _check_range(device, "exposure", asked.time_us, time.Min, time.Max, "us")
    gain = _first(camera, device, GAIN_NODES)
    if not _counts_raw(gain):
        _check_range(device, "gain", asked.gain_db, gain.Min, gain.Max, "dB")
    elif asked.gain_db != 0:
        # Raw steps mean other decibels on every model; only the lowest gain, called 0 dB,
        # can be asked of all of them.
        raise DeviceError(
            device,
            f"gain of {asked.gain_db:g} dB: this model counts GainRaw in steps of its own",
            "use gain_db: 0, its lowest gain, and a longer exposure or more light",
        )


def apply(camera: Any, device: str, asked: Exposure) -> Exposure:
    """Set and return what is read back; raises if the camera holds another value."""
    gain = _first(camera, device, GAIN_NODES)
    _first(camera, device, TIME_NODES).Value = asked.time_us
    gain.Value = gain.Min if _counts_raw(gain) else asked.gain_db
    held = read(camera, device)
    time_step_us = _time_step_us(camera, device, held.time_us)
    _check_held(device, "exposure", asked.time_us, held.time_us, time_step_us, "us")
    gain_step = gain.Inc if not _counts_raw(gain) and gain.HasInc() else GAIN_TOLERANCE_DB
    _check_held(device, "gain", asked.gain_db, held.gain_db, gain_step, "dB")
    return held


def read(camera: Any, device: str) -> Exposure:
    """Return what the camera holds."""
    time_us = float(_first(camera, device, TIME_NODES).Value)
    gain = _first(camera, device, GAIN_NODES)
    if not _counts_raw(gain):
        return Exposure(time_us, float(gain.Value))
    if gain.Value != gain.Min:
        raise DeviceError(
            device,
            f"GainRaw is {gain.Value}, which is no known number of decibels",
            f"set GainRaw to {gain.Min}, its lowest, in the .pfs",
        )
    return Exposure(time_us, 0.0)


def _time_step_us(camera: Any, device: str, held_us: float) -> float:
    time = _first(camera, device, TIME_NODES)
    if time.HasInc():
        return max(float(time.Inc), TIME_STEP_US)
    # Classic GigE models count exposure in a base of up to 35 us and name no increment.
    base = float(camera.ExposureTimeBaseAbs.GetValueOrDefault(0.0))
    return max(base, TIME_TOLERANCE * held_us)


def _check_range(device: str, what: str, asked: float, low: float, high: float, unit: str) -> None:
    if not low <= asked <= high:  # NaN is refused too
        raise DeviceError(
            device, f"{what} of {asked:g} {unit} is outside {low:g} to {high:g} {unit}"
        )


def _check_held(device: str, what: str, asked: float, held: float, step: float, unit: str) -> None:
    if not abs(held - asked) <= step:
        raise DeviceError(
            device, f"{what} set to {asked:g} {unit} but the camera holds {held:g} {unit}"
        )


def _first(camera: Any, device: str, names: tuple[str, ...]) -> Any:
    """Return the first of these nodes the camera has."""
    for name in names:
        node = getattr(camera, name)
        if node.IsReadable():
            return node
    raise DeviceError(device, f"has none of {', '.join(names)}")


def _counts_raw(gain: Any) -> bool:
    return isinstance(gain, pylon.IntegerParameter)
