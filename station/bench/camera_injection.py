"""The faults of the camera that `station bench faults` does, and how each is done and undone.

A picture is disturbed by the simulator, as `station fault picture` does. Everything else is done to
the nodes of pylon's emulator, which lives where the camera's driver does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from station.records.sheet import Frame

if TYPE_CHECKING:
    from station.devices.basler import BaslerCamera

SHOT = 2  # of the sheet, at which a fault comes
READY_S = 10.0
POLL_S = 0.01

Hand = Callable[["Disturbed"], object]


class Fault(NamedTuple):
    """What goes wrong with the camera, how it is undone, and whether it comes once or stays."""

    name: str
    do: Hand
    undo: Hand
    times: tuple[str, ...] = ("once", "lasting")


class Disturbed:
    """The camera's own driver; what goes wrong is done to its emulator just before a trigger."""

    def __init__(self, camera: BaslerCamera, plan: Plan, send: Callable[[str], object]) -> None:
        self._camera = camera
        self._plan = plan
        self.send = send
        """Tell the simulator something, as `station fault` does."""

    @property
    def nodes(self) -> Any:
        """The emulator's nodes."""
        return self._camera.nodes

    def configure(self, exposure_us: float, gain_db: float) -> None:
        """As the driver does."""
        self._camera.configure(exposure_us, gain_db)

    def trigger(self) -> Frame:
        """As the driver does, after what the plan has for this trigger."""
        self._plan.next_trigger(self)
        return self._camera.trigger()

    def reconnect(self) -> None:
        """As the driver does."""
        self._camera.reconnect()

    @property
    def device(self) -> str:
        """As the driver's."""
        return self._camera.device

    def statistics(self) -> dict[str, int]:
        """As the driver does."""
        return self._camera.statistics()


class Plan:
    """Which fault comes at which trigger; set by one thread, followed by the one that triggers."""

    def __init__(self) -> None:
        self._fault: Fault | None = None
        self._once = False
        self._triggers = 0
        self.happened: float | None = None

    def set(self, fault: Fault, times: str) -> None:
        """Have the fault come at a coming sheet's second shot."""
        self.happened, self._once, self._fault = None, times == "once", fault

    def end(self, camera: Disturbed) -> None:
        """Undo a lasting fault."""
        if self._fault is not None:
            self._fault.undo(camera)
            self._fault = None

    def next_sheet(self) -> None:
        """Count triggers anew."""
        self._triggers = 0

    def next_trigger(self, camera: Disturbed) -> None:
        """Do or undo what there is to do before this trigger."""
        self._triggers += 1
        if self._fault is None:
            return
        if self.happened is None:
            if self._triggers == SHOT:
                self._fault.do(camera)
                self.happened = time.monotonic()
        elif self._once:
            self.end(camera)
        else:
            self._fault.do(camera)


def _picture(disturbance: str) -> tuple[Hand, Hand]:
    """Have the simulator show another picture than the one that would be seen."""
    return (
        lambda camera: camera.send(f"picture {disturbance}"),
        lambda camera: camera.send("picture seen"),
    )


def _lose_packets(camera: Disturbed) -> None:
    camera.nodes.ForceFailedBufferCount.Value = 1
    camera.nodes.ForceFailedBuffer.Execute()


def _never_ready(camera: Disturbed) -> None:
    # Running freely, the emulator takes no triggers; its first picture comes after the timeout.
    camera.nodes.AcquisitionFrameRate.Value = 1.0
    camera.nodes.TriggerMode.Value = "Off"


def _ready_again(camera: Disturbed) -> None:
    if camera.nodes.IsOpen():  # else it is opened, and set up, anew
        camera.nodes.TriggerMode.Value = "On"


def _trigger_unasked(camera: Disturbed) -> None:
    camera.nodes.ExecuteSoftwareTrigger()
    end = time.monotonic() + READY_S
    while camera.nodes.NumReadyBuffers.Value == 0 and time.monotonic() < end:
        time.sleep(POLL_S)


def _break_stream(camera: Disturbed) -> None:
    camera.nodes.StreamGrabber.ImposedError.Value = "the stream broke"


def _mend_stream(camera: Disturbed) -> None:
    camera.nodes.StreamGrabber.ImposedError.Value = ""


def _unplug(camera: Disturbed) -> None:
    camera.nodes.FirePnPCallback.Execute()


def _nothing(_: Disturbed) -> None:
    """A forced failure is used up, and a removed camera is opened anew by clear."""


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("removed", _unplug, _nothing, ("lasting",)),
        # A retake starts grabbing anew, which always ends these three in the emulator.
        Fault("incomplete", _lose_packets, _nothing, ("once",)),
        Fault("stream error", _break_stream, _mend_stream, ("once",)),
        Fault("unasked", _trigger_unasked, _nothing, ("once",)),
        Fault("no answer", _never_ready, _ready_again),
        Fault("damaged", *_picture("damaged")),
        Fault("wrong size", *_picture("cropped")),
        Fault("dark", *_picture("dark")),
        Fault("overexposed", *_picture("overexposed")),
        Fault("out of focus", *_picture("blurred")),
        Fault("repeated", *_picture("repeated")),
    )
}
