"""Children with deadlines: whatever a child does, its parent goes on and it does not outlive it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from station.errors import DeviceError, RobotStopped
from station.worker import Worker, WorkerError

START_S = 20.0


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def begin(target: str = "Server", *args: object, deadline_s: float = START_S) -> Worker:
        workers.append(Worker("test", f"worker_targets:{target}", args, deadline_s))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.kill()


@pytest.fixture(scope="module")
def healthy(start: Callable[..., Worker]) -> Worker:
    """One child for all tests that leave it as it was."""
    return start()


def gone(pid: int | None, within_s: float = 1.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_requests_are_answered_in_another_process(healthy: Worker) -> None:
    assert healthy.request("echo", {"a": (1, None)}, deadline_s=1) == {"a": (1, None)}
    assert healthy.request("pid", deadline_s=1) == healthy.pid != os.getpid()


def test_a_large_answer_comes_whole(healthy: Worker) -> None:
    data = os.urandom(5_000_000)
    assert healthy.request("echo", data, deadline_s=5) == data


def test_a_child_that_freezes_while_it_sends_is_ended(start: Callable[..., Worker]) -> None:
    worker = start()
    started = time.monotonic()
    with pytest.raises(WorkerError, match=r"ended unexpectedly \(exit code -9\)"):
        worker.request("freeze_while_sending", deadline_s=0.5)
    assert time.monotonic() - started < 5
    assert gone(worker.pid)


def test_a_deliberate_error_arrives_as_itself(healthy: Worker) -> None:
    with pytest.raises(RobotStopped) as caught:
        healthy.request("stopped", deadline_s=1)
    assert caught.value.advice == "clear it"
    assert isinstance(caught.value, DeviceError)
    assert healthy.alive


def test_a_bug_in_the_child_shows_its_traceback_and_leaves_the_child_alive(
    healthy: Worker,
) -> None:
    with pytest.raises(WorkerError, match="nobody foresaw this") as caught:
        healthy.request("bug", deadline_s=1)
    assert "worker_targets.py" in str(caught.value)
    assert healthy.request("echo", 1, deadline_s=1) == 1


@pytest.mark.parametrize("method", ["no_such_method", "unpicklable"])
def test_a_request_that_cannot_be_answered_is_an_error(
    start: Callable[..., Worker], method: str
) -> None:
    with pytest.raises(WorkerError):
        start().request(method, deadline_s=2)


def test_between_requests_the_child_idles(healthy: Worker) -> None:
    before = healthy.request("idles", deadline_s=1)
    time.sleep(0.3)
    assert healthy.request("idles", deadline_s=1) - before > 10


def test_the_child_knows_that_its_parent_runs(healthy: Worker) -> None:
    assert healthy.request("age", deadline_s=1) < 0.3


def test_threads_may_ask_at_the_same_time(healthy: Worker) -> None:
    answers: dict[int, object] = {}

    def ask(number: int) -> None:
        for _ in range(50):
            answers[number] = healthy.request("echo", number, deadline_s=5)
            assert answers[number] == number

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: number for number in range(4)}


def test_ctrl_c_at_the_keyboard_is_the_parents_business(healthy: Worker) -> None:
    assert healthy.pid is not None
    os.kill(healthy.pid, signal.SIGINT)
    assert healthy.request("echo", 1, deadline_s=1) == 1


@pytest.mark.parametrize("method", ["sleep", "hold_interpreter"])
def test_past_its_deadline_a_child_is_killed(start: Callable[..., Worker], method: str) -> None:
    worker = start()
    args = (30.0,) if method == "sleep" else ()
    started = time.monotonic()
    with pytest.raises(WorkerError, match=rf"test: no answer to {method} within 0.2 s"):
        worker.request(method, *args, deadline_s=0.2)
    assert time.monotonic() - started < 1.0
    assert gone(worker.pid)
    assert not worker.alive
    with pytest.raises(WorkerError, match="has already ended"):
        worker.request("echo", 1, deadline_s=1)


@pytest.mark.parametrize(("method", "code"), [("die", "7"), ("crash", "-11")])
def test_a_child_that_dies_is_named_with_its_exit_code(
    start: Callable[..., Worker], method: str, code: str
) -> None:
    worker = start()
    started = time.monotonic()
    with pytest.raises(WorkerError, match=rf"ended unexpectedly \(exit code {code}\)"):
        worker.request(method, deadline_s=20)
    assert time.monotonic() - started < 2, "a death is seen at once, not at the deadline"
    assert not worker.alive


def test_a_child_killed_between_requests_is_noticed(start: Callable[..., Worker]) -> None:
    worker = start()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    assert gone(worker.pid)
    for _ in range(2):
        with pytest.raises(WorkerError):
            worker.request("echo", 1, deadline_s=5)


def test_an_error_while_starting_arrives_as_itself(start: Callable[..., Worker]) -> None:
    with pytest.raises(RobotStopped, match="protective stop"):
        start("Refuses")


def test_a_child_that_does_not_get_ready_is_killed(start: Callable[..., Worker]) -> None:
    started = time.monotonic()
    with pytest.raises(WorkerError, match=r"no answer to start within 0.5 s"):
        start("Hangs", deadline_s=0.5)
    assert time.monotonic() - started < 2


def test_a_target_that_does_not_exist_is_an_error(start: Callable[..., Worker]) -> None:
    with pytest.raises(WorkerError, match="start failed"):
        start("NoSuchClass")


def test_closing_lets_the_child_clean_up(start: Callable[..., Worker], tmp_path: Path) -> None:
    worker = start("Server", str(tmp_path))
    worker.close()
    assert (tmp_path / "closed").read_text() == str(worker.pid)
    assert gone(worker.pid)
    worker.close()


def test_a_worker_leaves_no_thread_and_no_descriptor_behind() -> None:
    def counted() -> tuple[int, int]:
        Worker("test", "worker_targets:Server", (), START_S).close()
        time.sleep(0.2)
        gc.collect()
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    assert counted() >= counted()


PARENT = """
import sys, time
from station.worker import Worker
if __name__ == "__main__":
    worker = Worker("test", sys.argv[1], tuple(sys.argv[3:]), 20.0)
    print(worker.pid, flush=True)
    if sys.argv[2] == "busy":
        worker.request("sleep", 60.0, deadline_s=90)
    time.sleep(60)
"""


@pytest.mark.parametrize(("target", "does"), [("Server", "busy"), ("Stays", "idle")])
def test_a_child_never_outlives_its_parent(target: str, does: str, tmp_path: Path) -> None:
    """Neither in the middle of a request, nor if it takes its time when its parent is gone."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    folders = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    parent = subprocess.Popen(
        [sys.executable, str(script), f"worker_targets:{target}", does, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": folders},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pid)
    if target == "Stays":
        assert (tmp_path / "closed").read_text() == str(pid)


@pytest.mark.parametrize("hanging", [True, False])
def test_a_child_that_gives_up_says_why_even_between_requests(
    start: Callable[..., Worker], hanging: bool
) -> None:
    worker = start()
    worker.request("give_up_after", 0.2, deadline_s=1)
    if not hanging:
        assert gone(worker.pid, 2.0)
    with pytest.raises(RobotStopped, match="given up; look at it"):
        worker.request("sleep", 30.0, deadline_s=5)
    assert gone(worker.pid)
    with pytest.raises(WorkerError):
        worker.request("pid", deadline_s=1)
