"""What a line on the control socket may do, and who may send it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station import control
from station.control import Control
from station.states import Command, Machine, Mode, State


def controlled(state: State = State.ABORTED) -> tuple[Machine, Control]:
    machine = Machine()
    machine._state = state
    return machine, Control(machine, lambda: {"run": None})


def ask(control: Control, **request: Any) -> dict[str, Any]:
    return control.answer(json.dumps({"user": "anna", **request}).encode() + b"\n")


def test_an_accepted_command_is_answered_with_the_state_it_leads_to() -> None:
    machine, control = controlled()
    answer = ask(control, command="clear", reason="sheet taken out")
    assert answer["accepted"]
    assert (answer["state"], answer["number"], answer["owner"]) == ("clearing", 1, "anna")
    assert answer["commands"] == ["abort"]
    assert machine.reason == "clear by anna: sheet taken out"


def test_a_refusal_says_why_and_changes_nothing() -> None:
    machine, control = controlled()
    answer = ask(control, command="start")
    assert not answer["accepted"]
    assert "not possible in state aborted" in answer["why"]
    assert machine.state is State.ABORTED
    assert control.owner is None, "a refused command takes no control"


def test_looking_changes_nothing_and_needs_no_control() -> None:
    machine, control = controlled(State.EXECUTE)
    assert ask(control, command="status")["state"] == "execute"
    assert control.owner is None
    assert machine.state is State.EXECUTE


def test_one_person_at_a_time_has_control() -> None:
    machine, control = controlled()
    assert ask(control, command="clear")["accepted"]
    machine.done(State.CLEARING)
    refused = ask(control, command="reset", user="bert")
    assert not refused["accepted"]
    assert "anna has control" in refused["why"]
    assert machine.state is State.STOPPED
    assert ask(control, command="reset", user="bert", take=True)["owner"] == "bert"


@pytest.mark.parametrize("command", ["hold", "stop", "abort"])
def test_whoever_wants_the_arm_to_rest_needs_no_control(command: str) -> None:
    machine, control = controlled(State.EXECUTE)
    control.owner = "anna"
    assert ask(control, command=command, user="bert")["accepted"]
    assert machine.state is not State.EXECUTE
    assert control.owner == "anna"


def test_modes_are_changed_by_name() -> None:
    machine, control = controlled()
    assert ask(control, command="mode", mode="maintenance")["mode"] == "maintenance"
    assert machine.mode is Mode.MAINTENANCE
    assert "lent" in ask(control, command="clear")["why"]
    assert not ask(control, command="mode")["accepted"]
    assert "mode" in ask(control, command="mode", mode="turbo")["why"]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"start\n",
        b"{}\n",
        b"[]\n",
        b"\xff\xfe\n",
        b'{"command": "start"}\n',
        b'{"command": "suspend", "user": "anna"}\n',
        b'{"command": "start", "user": ""}\n',
        b'{"command": "start", "user": "a\\u0000b"}\n',
        b'{"command": "start", "user": "' + b"a" * 65 + b'"}\n',
        b'{"command": "start", "user": "anna", "force": true}\n',
        b'{"command": "start", "user": "anna", "take": "yes"}\n',
        b'{"command": "start", "user": "anna", "reason": "two\\nlines"}\n',
        b"[" * 4000 + b"\n",
        b'{"command": "status", "command": "abort", "user": "anna"}\n',
    ],
)
def test_a_malformed_line_is_refused_with_what_is_wrong(line: bytes) -> None:
    machine, control = controlled(State.IDLE)
    answer = control.answer(line)
    assert not answer["accepted"]
    assert answer["why"].startswith("not understood")
    assert len(answer["why"]) < 300
    assert (machine.state, control.owner) == (State.IDLE, None)


@given(st.binary(max_size=200))
def test_no_bytes_move_the_state(line: bytes) -> None:
    machine, control = controlled(State.IDLE)
    answer = control.answer(line)
    assert not answer["accepted"]
    assert machine.state is State.IDLE
    json.dumps(answer)


def test_people_cannot_send_what_only_the_loop_decides() -> None:
    for command in (Command.SUSPEND, Command.UNSUSPEND):
        machine, control = controlled(State.EXECUTE)
        assert not ask(control, command=command)["accepted"]
        assert machine.state is State.EXECUTE


def test_an_abort_gets_in_however_many_clients_are_silent(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    machine = Machine()
    with ExitStack() as stack:
        stack.enter_context(control.serve(tmp_path, Control(machine, dict)))
        for _ in range(2 * control.CLIENTS):
            silent = stack.enter_context(
                control._connected(tmp_path / "run" / "control.sock", control.ANSWER_S)
            )
            assert silent.fileno() >= 0
        machine.command(Command.CLEAR)
        assert control.ask(tmp_path, command="abort", user="anna")["accepted"]
        assert machine.state is State.ABORTING
