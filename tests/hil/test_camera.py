"""The unchanged Basler driver against pylon's own camera emulator."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_feed import CameraFeed, write_pfs
from numpy.typing import NDArray
from pypylon import genicam, pylon

from station.devices import basler, basler_exposure
from station.errors import (
    ConfigError,
    DeviceError,
    DeviceNotFound,
    DeviceTimeout,
    IncompleteFrame,
)

SERIAL = "0815-0000"
HEIGHT, WIDTH = 48, 64


@pytest.fixture
def feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CameraFeed:
    feed = CameraFeed(tmp_path)
    feed.attach(SERIAL, Width=WIDTH, Height=HEIGHT, PixelFormat="Mono8")
    feed.show(picture(0))
    monkeypatch.setenv("PYLON_CAMEMU", "2")
    monkeypatch.setenv("PYLON_CAMEMU_PFS_PATH", str(feed.nodes))
    return feed


@contextmanager
def opened(**settings: Any) -> Iterator[basler.BaslerCamera]:
    defaults = {"serial": SERIAL, "trigger_timeout_s": 0.4, "connect_timeout_s": 2.0}
    with basler.connect(basler.Settings.model_validate(defaults | settings)) as camera:
        assert isinstance(camera, basler.BaslerCamera)
        yield camera


def picture(seed: int, *channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, *channels), np.uint8)


def assert_exact_shots(camera: basler.BaslerCamera, feed: CameraFeed, count: int) -> None:
    for seed in range(count):
        feed.show(picture(seed))
        assert np.array_equal(camera.trigger().image, picture(seed)), f"shot {seed}"


def fail_next(camera: basler.BaslerCamera, count: int) -> None:
    camera._camera.ForceFailedBufferCount.Value = count
    camera._camera.ForceFailedBuffer.Execute()


def test_hundred_shots_are_exact(feed: CameraFeed) -> None:
    before = datetime.now(UTC)
    with opened() as camera:
        frames = []
        for seed in range(100):
            feed.show(picture(seed))
            frames.append(camera.trigger())
            assert np.array_equal(frames[-1].image, picture(seed)), f"shot {seed}"
        counts = camera.statistics()
    assert [frame.number for frame in frames] == list(range(1, 101))
    assert before < frames[0].taken_at < frames[-1].taken_at < datetime.now(UTC)
    # Kept while a hundred others were taken: each frame owns its pixels.
    assert np.array_equal(frames[0].image, picture(0))
    assert counts == {
        "triggers": 100,
        "frames": 100,
        "failed": 0,
        "retried": 0,
        "reconnected": 0,
    }


@pytest.mark.parametrize("pixel_format", ["RGB8Packed", "BGR8Packed"])
def test_colour_is_exact_rgb(feed: CameraFeed, tmp_path: Path, pixel_format: str) -> None:
    pfs = write_pfs(tmp_path / "camera.pfs", PixelFormat=pixel_format)
    with opened(pfs=str(pfs)) as camera:
        feed.show(picture(1, 3))
        frame = camera.trigger()
    assert np.array_equal(frame.image, picture(1, 3))
    assert frame.image.flags.c_contiguous


@pytest.mark.usefixtures("feed")
@pytest.mark.bad_input("071-another-bit-depth")
def test_other_pixel_format_is_refused(tmp_path: Path) -> None:
    pfs = write_pfs(tmp_path / "camera.pfs", PixelFormat="Mono12")
    with (
        pytest.raises(DeviceError, match=r"Mono12.*set PixelFormat to Mono8"),
        opened(pfs=str(pfs)),
    ):
        pass


def test_settings_file_leaves_the_feed_and_loses_its_auto_functions_and_trigger(
    feed: CameraFeed, tmp_path: Path
) -> None:
    pfs = write_pfs(
        tmp_path / "camera.pfs",
        ExposureAuto="Continuous",
        GainAuto="Continuous",
        TriggerMode="Off",
        TriggerSource="Line1",
        Gamma="1.5000",
    )
    with opened(pfs=str(pfs)) as camera:
        nodes = camera._camera
        assert (nodes.ExposureAuto.Value, nodes.GainAuto.Value) == ("Off", "Off")
        assert (nodes.TriggerMode.Value, nodes.TriggerSource.Value) == ("On", "Software")
        assert nodes.Gamma.Value == 1.5
        assert_exact_shots(camera, feed, 3)


@pytest.mark.usefixtures("feed")
@pytest.mark.parametrize(
    "nodes",
    [{"Width": 0}, {"Width": -64}, {"Width": 99999}, {"OffsetX": 99999}],
    ids=["022-no-width", "022-negative", "022-wider-than-sensor", "022-outside-sensor"],
)
def test_a_region_the_sensor_has_not_is_refused(tmp_path: Path, nodes: dict[str, int]) -> None:
    pfs = write_pfs(tmp_path / "camera.pfs", **nodes)
    refused = pytest.raises(DeviceError, match=rf"camera {SERIAL}: .*{next(iter(nodes))}")
    with refused, opened(pfs=str(pfs)):
        pass


@pytest.mark.usefixtures("feed")
@pytest.mark.bad_input("027-settings-of-another-camera")
def test_settings_file_of_another_model_is_refused(tmp_path: Path) -> None:
    pfs = write_pfs(tmp_path / "camera.pfs", LightSourcePreset="Daylight5000K")
    with (
        pytest.raises(
            DeviceError, match=r"does not take .*LightSourcePreset.*fits one camera model"
        ),
        opened(pfs=str(pfs)),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="no such camera settings file"),
        opened(pfs="none.pfs"),
    ):
        pass


@pytest.mark.usefixtures("feed")
@pytest.mark.bad_input("027-another-camera", "078-missing-at-start")
def test_wrong_serial_lists_those_there_at_once() -> None:
    started = time.monotonic()
    with (
        pytest.raises(DeviceNotFound, match="40012345: not found; there are 0815-0000, 0815-0001"),
        opened(serial="40012345", connect_timeout_s=30),
    ):
        pass
    assert time.monotonic() - started < 5


@pytest.mark.usefixtures("feed")
def test_camera_that_does_not_open_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(connect_timeout_s=1.2) as camera:
        # The emulator is never held by another program: let it vanish after the look.
        monkeypatch.setattr(basler, "_serials_present", lambda: [SERIAL])
        monkeypatch.setenv("PYLON_CAMEMU", "0")
        started = time.monotonic()
        with pytest.raises(DeviceError, match=r"not opened in 1\.2 s: No device is available"):
            camera.reconnect()
        assert 0.5 < time.monotonic() - started < 5


@pytest.mark.usefixtures("feed")
def test_exposure_and_gain_are_set_and_recorded() -> None:
    with opened() as camera:
        camera.configure(12345.0, 3.5)
        frame = camera.trigger()
        assert camera._camera.ExposureTime.Value == pytest.approx(12345.0)
    assert frame.exposure_us == pytest.approx(12345.0)
    assert frame.gain_db == pytest.approx(3.5, abs=0.001)


@pytest.mark.usefixtures("feed")
def test_values_out_of_range_are_refused_and_change_nothing() -> None:
    with opened() as camera:
        camera.configure(5000, 1)
        with pytest.raises(DeviceError, match=r"exposure of 1e\+08 us is outside 1 to 1e\+07 us"):
            camera.configure(1e8, 1)
        with pytest.raises(DeviceError, match="gain of 99 dB is outside 0 to 48 dB"):
            camera.configure(6000, 99)
        with pytest.raises(DeviceError, match="exposure of nan us"):
            camera.configure(float("nan"), 0)
        camera.reconnect()
        frame = camera.trigger()
    assert frame.exposure_us == pytest.approx(5000)
    assert frame.gain_db == pytest.approx(1, abs=0.001)


@pytest.mark.usefixtures("feed")
def test_classic_node_names_work_and_raw_gain_takes_only_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(basler_exposure, "TIME_NODES", ("NoSuchNode", "ExposureTimeAbs"))
    monkeypatch.setattr(basler_exposure, "GAIN_NODES", ("NoSuchNode", "GainRaw"))
    with opened() as camera:
        camera.configure(7000, 0)
        assert camera._camera.ExposureTimeAbs.Value == pytest.approx(7000)
        assert camera.trigger().gain_db == 0
        with pytest.raises(DeviceError, match="GainRaw in steps of its own; use gain_db: 0"):
            camera.configure(7000, 2)
    monkeypatch.setattr(basler_exposure, "GAIN_NODES", ("NoSuchNode",))
    with pytest.raises(DeviceError, match="has none of NoSuchNode"), opened():
        pass


@pytest.mark.bad_input("072-partial-frame")
def test_failed_picture_is_raised_and_the_next_is_not_stale(feed: CameraFeed) -> None:
    with opened() as camera:
        assert_exact_shots(camera, feed, 2)
        for round_ in range(5):
            fail_next(camera, 1)
            feed.show(picture(1000 + round_))
            with pytest.raises(IncompleteFrame, match="incompletely grabbed"):
                camera.trigger()
            assert_exact_shots(camera, feed, 2)
        counts = camera.statistics()
        last = camera.trigger()
    assert counts == {"triggers": 17, "frames": 12, "failed": 5, "retried": 5, "reconnected": 0}
    assert last.number == 13


def test_missing_picture_fails_and_recovers(feed: CameraFeed) -> None:
    with opened() as camera:
        feed.remove()
        with pytest.raises(IncompleteFrame, match="Failed to load image file"):
            camera.trigger()
        assert_exact_shots(camera, feed, 3)


@pytest.mark.bad_input("069-stale-frame", "073-two-frames-for-one-trigger")
def test_picture_nobody_asked_for_is_never_returned(feed: CameraFeed) -> None:
    with opened() as camera:
        feed.show(picture(7))
        deadline = time.monotonic() + 10
        while not camera._camera.WaitForFrameTriggerReady(0, pylon.TimeoutHandling_Return):
            assert time.monotonic() < deadline  # a trigger that comes too early is lost
            time.sleep(0.005)
        camera._camera.ExecuteSoftwareTrigger()
        while camera._camera.NumReadyBuffers.Value == 0:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        with pytest.raises(IncompleteFrame, match="before it was asked for"):
            camera.trigger()
        assert_exact_shots(camera, feed, 3)


@pytest.mark.bad_input("074-after-the-timeout")
def test_picture_that_comes_after_the_timeout_is_never_returned(feed: CameraFeed) -> None:
    # The emulator answers about 10 ms after the trigger.
    with opened(trigger_timeout_s=0.004) as camera:
        camera.configure(10, 0)
        for seed in range(5):
            feed.show(picture(2000 + seed))
            with pytest.raises(DeviceTimeout, match="sent no picture within"):
                camera.trigger()
        counts = camera.statistics()
    assert (counts["triggers"], counts["frames"], counts["failed"]) == (5, 0, 5)
    with opened() as camera:
        patient = camera._settings
        camera._settings = patient.model_copy(update={"trigger_timeout_s": 0.004})
        camera.configure(10, 0)
        feed.show(picture(3000))
        with pytest.raises(DeviceTimeout):
            camera.trigger()
        camera._settings = patient
        time.sleep(0.05)
        assert_exact_shots(camera, feed, 3)


def test_camera_that_never_becomes_ready_times_out(feed: CameraFeed) -> None:
    with opened(trigger_timeout_s=0.1) as camera:
        camera._camera.StopGrabbing()
        camera._camera.TriggerMode.Value = "Off"
        camera._camera.AcquisitionFrameRate.Value = 2
        camera._start()
        with pytest.raises(DeviceTimeout, match=r"did not become ready .* within 0\.1 s"):
            camera.trigger()
        camera._camera.StopGrabbing()
        camera._camera.TriggerMode.Value = "On"
        assert_exact_shots(camera, feed, 3)


@pytest.mark.bad_input("079-stream-error")
def test_imposed_stream_error_is_translated_and_recovers(feed: CameraFeed) -> None:
    with opened() as camera:
        assert_exact_shots(camera, feed, 2)
        camera._camera.StreamGrabber.ImposedError.Value = "the stream broke"
        with pytest.raises(DeviceError, match="the stream broke; check its power") as caught:
            camera.trigger()
        assert isinstance(caught.value.__cause__, genicam.GenericException)
        assert "file" not in str(caught.value)
        camera._camera.StreamGrabber.ImposedError.Value = ""
        assert_exact_shots(camera, feed, 3)


@pytest.mark.bad_input("078-removed")
def test_removed_camera_is_refused_until_reconnected_and_exact_again(feed: CameraFeed) -> None:
    with opened() as camera:
        camera.configure(4321, 2)
        assert_exact_shots(camera, feed, 3)
        for cycle in range(1, 3):
            camera._camera.FirePnPCallback.Execute()
            with pytest.raises(DeviceError, match="was removed; check its power and cable"):
                camera.trigger()
            with pytest.raises(DeviceError, match="was removed"):
                camera.configure(4321, 2)
            camera.reconnect()
            assert_exact_shots(camera, feed, 10)
            assert camera.statistics()["reconnected"] == cycle
        frame = camera.trigger()
    assert frame.number == 24
    assert frame.exposure_us == pytest.approx(4321)
    assert frame.gain_db == pytest.approx(2, abs=0.001)


def test_reconnect_waits_for_the_camera_but_not_for_ever(
    feed: CameraFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(connect_timeout_s=1.0) as camera:
        monkeypatch.setenv("PYLON_CAMEMU", "0")
        started = time.monotonic()
        with pytest.raises(DeviceNotFound, match="no Basler camera answers"):
            camera.reconnect()
        assert 0.4 < time.monotonic() - started < 4
        with pytest.raises(DeviceError, match="is not connected"):
            camera.trigger()
        with pytest.raises(DeviceError, match="is not connected"):
            camera.configure(1000, 0)
        monkeypatch.setenv("PYLON_CAMEMU", "2")
        camera.reconnect()
        assert_exact_shots(camera, feed, 3)


@pytest.mark.bad_input("071-another-size")
def test_picture_of_another_size_is_refused(feed: CameraFeed) -> None:
    with opened() as camera:
        feed.show(picture(0)[: HEIGHT - 10])
        with pytest.raises(IncompleteFrame, match="picture of 64 x 38, not 64 x 48"):
            camera.trigger()
        assert_exact_shots(camera, feed, 2)


def test_interrupted_shot_ends_at_once_and_leaves_nothing_behind(feed: CameraFeed) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    previous = signal.signal(signal.SIGUSR1, interrupt)
    alarm = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        with opened(trigger_timeout_s=20) as camera:
            # A camera that has taken its single frame is never ready again.
            camera._camera.StopGrabbing()
            camera._camera.AcquisitionMode.Value = "SingleFrame"
            camera._start()
            camera.trigger()
            feed.show(picture(99))
            started = time.monotonic()
            alarm.start()
            with pytest.raises(Interrupted):
                camera.trigger()
            assert time.monotonic() - started < 1
            camera._camera.StopGrabbing()
            camera._camera.AcquisitionMode.Value = "Continuous"
            assert_exact_shots(camera, feed, 3)
    finally:
        alarm.cancel()
        signal.signal(signal.SIGUSR1, previous)


def test_no_wait_of_pylon_ends_by_an_alarm(feed: CameraFeed) -> None:
    alarms: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, _: alarms.append(number))
    try:
        with opened(trigger_timeout_s=0.004) as camera:
            camera.configure(10, 0)
            feed.show(picture(1))
            for _ in range(10):
                with pytest.raises(DeviceTimeout):
                    camera.trigger()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert alarms == []


def test_closed_camera_gives_no_picture(feed: CameraFeed) -> None:
    with opened() as camera:
        camera.trigger()
    with pytest.raises(DeviceError, match="is not connected"):
        camera.trigger()
    with opened() as camera:
        assert_exact_shots(camera, feed, 2)
