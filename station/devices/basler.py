"""Basler cameras through pylon: found by serial number, one software trigger a picture.

What only an emulated camera has (where its pictures come from) is set from outside, by pylon's
own environment variables; nothing here knows of it.

Pylon never waits in here: its waits end by SIGALRM, which goes astray where the process has a
handler of its own, and they hold back Python's signals. It is polled until a deadline instead.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from pypylon import genicam, pylon

from station.devices import Camera, basler_exposure
from station.devices.basler_exposure import Exposure
from station.errors import (
    ConfigError,
    DeviceError,
    DeviceLost,
    DeviceNotFound,
    DeviceTimeout,
    IncompleteFrame,
)
from station.records.sheet import Frame, Image
from station.strict import Strict

POLL_S = 0.001
RETRY_S = 0.5  # between two tries to open; an enumeration by itself takes about 0.25 s

AUTO_NODES = ("ExposureAuto", "GainAuto", "BalanceWhiteAuto")

# Both namings of each format; True where the channels must be turned round to be RGB.
REVERSED_CHANNELS = {
    "Mono8": False,
    "RGB8": False,
    "RGB8Packed": False,
    "BGR8": True,
    "BGR8Packed": True,
}

NO_BLOCK_ID = 2**64 - 1  # what pylon answers where the transport does not number its blocks
LAST_GIGE_BLOCK_ID = 2**16 - 1  # classic GigE counts in 16 bits and goes on with 1

LOST_ADVICE = "check its power and cable, then start again"


class Settings(Strict):
    """Which camera, its settings file and how long to wait for it."""

    serial: str = Field(min_length=1)
    pfs: str | None = Field(default=None, description="settings file saved by pylon Viewer")
    trigger_timeout_s: float = Field(
        default=2.0, gt=0, le=60, description="beyond the exposure itself"
    )
    connect_timeout_s: float = Field(default=10.0, gt=0, le=120)


@contextmanager
def connect(settings: Settings) -> Iterator[Camera]:
    """Open the camera, hand it over ready for triggers, close it at the end."""
    if settings.pfs is not None and not Path(settings.pfs).is_file():
        raise ConfigError(f"{settings.pfs}: no such camera settings file (.pfs)")
    camera = BaslerCamera(settings)
    try:
        # A camera that is not there is a wrong serial number or a loose cable: say so at once.
        camera.open(wait_for_it_s=0)
        yield camera
    finally:
        camera.close()


class BaslerCamera:
    """One opened camera, used from one thread at a time.

    Node objects are never kept and `_camera` outlives every use of it: pylon ends the process
    where either is touched after the device is gone.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.device = f"camera {settings.serial}"
        self._camera: Any = pylon.InstantCamera()  # no device attached: every use raises
        self._clean = False  # grabbing runs, nothing is queued and nothing is on its way
        self._size = (0, 0)
        self._reverse_channels = False
        self._results = 0  # since grabbing started
        self._last_block: int | None = None
        self._asked: Exposure | None = None
        self._held = Exposure(0.0, 0.0)
        self._counts = {"triggers": 0, "frames": 0, "failed": 0, "retried": 0, "reconnected": 0}

    @property
    def nodes(self) -> Any:
        """Pylon's own object, for what only one kind of camera has; never to be kept."""
        return self._camera

    def configure(self, exposure_us: float, gain_db: float) -> None:
        """Set and read back; raises if the camera holds another value."""
        try:
            self._refuse_lost()
            self._apply(Exposure(exposure_us, gain_db))
        except genicam.GenericException as error:
            raise self._translated(error) from error

    def trigger(self) -> Frame:
        """Expose once; return exactly that picture, or raise and return no picture at all.

        Whatever goes wrong, an interrupt included, leaves `_clean` False, and the next trigger
        starts grabbing anew: a picture that comes too late can never pass for the next one.
        """
        try:
            if not self._clean:
                self._counts["retried"] += 1
                self._start()
            self._clean = False
            frame = self._expose()
        except genicam.GenericException as error:
            self._counts["failed"] += 1
            raise self._translated(error) from error
        except DeviceError:
            self._counts["failed"] += 1
            raise
        self._clean = True
        return frame

    def reconnect(self) -> None:
        """Wait for the camera, open it as a new object and bring back every setting."""
        self.close()
        self.open(wait_for_it_s=self._settings.connect_timeout_s)
        self._counts["reconnected"] += 1

    def statistics(self) -> dict[str, int]:
        """Return counters since connecting.

        `failed` are triggers without a picture, `retried` triggers that began by emptying the
        queues because the one before them had failed.
        """
        return dict(self._counts)

    def open(self, wait_for_it_s: float) -> None:
        """Open the camera, waiting while it is absent or while someone else holds it."""
        now = time.monotonic()
        self._attach(
            absent_until=now + wait_for_it_s, busy_until=now + self._settings.connect_timeout_s
        )
        try:
            self._prepare()
            self._start()
        except genicam.GenericException as error:
            failure = self._translated(error)
            self.close()
            raise failure from error
        except DeviceError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the camera, in whatever state it is."""
        self._clean = False
        # A removed camera refuses some of these; the ones after it must still be tried.
        for step in (self._camera.StopGrabbing, self._camera.Close, self._camera.DestroyDevice):
            with suppress(genicam.GenericException):
                step()

    def _attach(self, absent_until: float, busy_until: float) -> None:
        while True:
            serials = _serials_present()
            if self._settings.serial in serials:
                problem = self._try_open()
                if problem is None:
                    return
                if time.monotonic() + RETRY_S > busy_until:
                    raise DeviceError(
                        self.device,
                        f"not opened in {self._settings.connect_timeout_s:g} s: {problem}",
                        "close other programs that hold it, pylon Viewer among them",
                    )
            elif time.monotonic() + RETRY_S > absent_until:
                there = f"there are {', '.join(serials)}" if serials else "no Basler camera answers"
                raise DeviceNotFound(
                    self.device, f"not found; {there}", "check serial number, power and cable"
                )
            time.sleep(RETRY_S)

    def _try_open(self) -> str | None:
        """Return why it did not open; a new object each try, for an old one stays refused."""
        try:
            self._camera = pylon.InstantCamera(
                {"SerialNumber": self._settings.serial}, pylon.Unambiguous
            )
            self._camera.Open()
        except genicam.GenericException as error:
            self.close()
            return _text(error)
        return None

    def _prepare(self) -> None:
        if self._settings.pfs is not None:
            self._load(self._settings.pfs)
        for name in AUTO_NODES:
            self._switch_off(name)
        # After the settings file, which may hold another trigger.
        pylon.SoftwareTriggerConfiguration.ApplyConfiguration(self._camera.NodeMap)
        self._camera.TriggerSelector.Value = "FrameStart"
        trigger = (self._camera.TriggerMode.Value, self._camera.TriggerSource.Value)
        if trigger != ("On", "Software"):
            raise DeviceError(
                self.device, f"does not take the software trigger; it holds {' '.join(trigger)}"
            )
        if self._asked is not None:
            self._apply(self._asked)
        else:
            self._held = basler_exposure.read(self._camera, self.device)

    def _load(self, pfs: str) -> None:
        try:
            pylon.FeaturePersistence.Load(pfs, self._camera.NodeMap, True)
        except genicam.GenericException as error:
            if self._camera.IsCameraDeviceRemoved():
                raise
            raise DeviceError(
                self.device,
                f"does not take {pfs}: {_text(error)}",
                "a .pfs fits one camera model only; save one from this camera in pylon Viewer",
            ) from error

    def _switch_off(self, name: str) -> None:
        node = getattr(self._camera, name)
        if not node.IsReadable():
            return  # this camera does not have it
        if node.Value != "Off":
            node.Value = "Off"
        if node.Value != "Off":
            raise DeviceError(
                self.device, f"{name} stays {node.Value}", f"set {name} to Off in its .pfs"
            )

    def _start(self) -> None:
        """Begin grabbing with empty queues."""
        self._clean = False
        self._camera.StopGrabbing()
        pixel_format = self._camera.PixelFormat.Value
        if pixel_format not in REVERSED_CHANNELS:
            raise DeviceError(
                self.device,
                f"PixelFormat {pixel_format} is not supported",
                "set PixelFormat to Mono8, RGB8 or BGR8 in its .pfs",
            )
        self._reverse_channels = REVERSED_CHANNELS[pixel_format]
        self._size = (self._camera.Height.Value, self._camera.Width.Value)
        self._results = 0
        self._last_block = None
        self._camera.StartGrabbing(pylon.GrabStrategy_OneByOne, pylon.GrabLoop_ProvidedByUser)
        self._clean = True

    def _expose(self) -> Frame:
        camera = self._camera
        self._refuse_lost()
        with camera.RetrieveResult(0, pylon.TimeoutHandling_Return) as early:
            if early.IsValid():
                raise IncompleteFrame(self.device, "a picture was there before it was asked for")
        deadline = time.monotonic() + self._settings.trigger_timeout_s + self._held.time_us / 1e6
        while camera.CanWaitForFrameTriggerReady() and not camera.WaitForFrameTriggerReady(
            0, pylon.TimeoutHandling_Return
        ):
            self._wait(deadline, "did not become ready for a trigger")
        taken_at = datetime.now(UTC)
        self._counts["triggers"] += 1
        camera.ExecuteSoftwareTrigger()
        while (image := self._retrieve()) is None:
            if not camera.IsGrabbing():
                raise DeviceError(self.device, "stopped grabbing by itself", LOST_ADVICE)
            self._wait(deadline, "sent no picture")
        self._refuse_lost()
        self._counts["frames"] += 1
        return Frame(image, self._counts["frames"], *self._held, taken_at)

    def _retrieve(self) -> Image | None:
        with self._camera.RetrieveResult(0, pylon.TimeoutHandling_Return) as result:
            return self._image(result) if result.IsValid() else None

    def _wait(self, deadline: float, problem: str) -> None:
        if time.monotonic() >= deadline:
            within = f"{problem} within {self._settings.trigger_timeout_s:g} s"
            raise DeviceTimeout(self.device, within, LOST_ADVICE)
        time.sleep(POLL_S)

    def _image(self, result: Any) -> Image:
        """Return a copy of the result's pixels, once everything about it is as expected."""
        # Asked first: a damaged picture has pixels too.
        if not result.GrabSucceeded():
            raise IncompleteFrame(
                self.device,
                f"damaged picture: {result.ErrorDescription} (0x{result.ErrorCode:08X})",
                "where it comes often, check the cable, packet size and inter-packet delay",
            )
        self._check_numbers(result)
        if (result.Height, result.Width) != self._size:
            height, width = self._size
            raise IncompleteFrame(
                self.device,
                f"picture of {result.Width} x {result.Height}, not {width} x {height}",
                "look at Width, Height and offsets in its .pfs",
            )
        image: Image = result.Array
        if image.dtype != np.uint8 or image.shape[:2] != self._size:
            raise IncompleteFrame(self.device, f"pixels of {image.dtype} {image.shape}")
        if self._reverse_channels:
            return np.ascontiguousarray(image[:, :, ::-1])
        return image

    def _check_numbers(self, result: Any) -> None:
        """Compare pylon's count and the camera's own: a gap is a picture nobody asked for."""
        self._results += 1
        if result.ImageNumber != self._results:
            raise IncompleteFrame(
                self.device,
                f"picture number {result.ImageNumber} answered trigger {self._results}",
            )
        block = int(result.BlockID)
        last = self._last_block
        self._last_block = block
        if block == NO_BLOCK_ID or last is None or block == last + 1:
            return
        if last == LAST_GIGE_BLOCK_ID and block <= 1:
            return
        raise IncompleteFrame(self.device, f"picture {block} came after {last}")

    def _apply(self, asked: Exposure) -> None:
        basler_exposure.check_possible(self._camera, self.device, asked)
        # From here on a reconnect brings it back; before, it may be impossible for ever.
        self._asked = asked
        self._held = basler_exposure.apply(self._camera, self.device, asked)

    def _refuse_lost(self) -> None:
        if self._camera.IsCameraDeviceRemoved():
            raise DeviceLost(self.device, "was removed", LOST_ADVICE)
        if not self._camera.IsPylonDeviceAttached():
            raise DeviceLost(self.device, "is not connected", LOST_ADVICE)

    def _translated(self, error: Exception) -> DeviceError:
        try:
            self._refuse_lost()
        except DeviceError as lost:
            return lost
        return DeviceError(self.device, _text(error), LOST_ADVICE)


def _serials_present() -> list[str]:
    try:
        devices = pylon.TlFactory.GetInstance().EnumerateDevices()
        # Copied to str at once: the info objects do not outlive the enumeration.
        return sorted(
            str(device.SerialNumber) for device in devices if device.IsSerialNumberAvailable()
        )
    except genicam.GenericException as error:
        raise DeviceError("pylon", f"cannot look for cameras: {_text(error)}") from error


def _text(error: Exception) -> str:
    """Return what pylon says without where in its source it says so."""
    text = " ".join(str(error).split())
    return re.sub(r"\s*: \w+ thrown\b.*", "", text).rstrip(". ")
