"""RTDE version 2, the robot's side: recipes agreed per connection, then a stream of data."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from station.sim.arm import Arm
from station.sim.controller import Controller
from station.sim.script import REGISTERS, Registers

PROTOCOL = 2
NAMES_LIMIT_BYTES = 2048
BACKLOG_LIMIT_BYTES = 1 << 20  # a client that does not read loses data, as on the robot

FORMATS = {
    "BOOL": ">?",
    "UINT8": ">B",
    "UINT32": ">I",
    "UINT64": ">Q",
    "INT32": ">i",
    "DOUBLE": ">d",
    "VECTOR3D": ">3d",
    "VECTOR6D": ">6d",
    "VECTOR6INT32": ">6i",
    "VECTOR6UINT32": ">6I",
}
_VERSION, _CONTROLLER, _OUTPUTS, _INPUTS = b"VvOI"
_START, _PAUSE, _DATA = b"SPU"

Value = float | Iterable[float]


class Variable(NamedTuple):
    """An output variable: its type and how to read it."""

    kind: str
    read: Callable[[Controller], Value]


def _outputs() -> dict[str, Variable]:
    six_zeros = [0.0] * 6

    def const(value: Value) -> Callable[[Controller], Value]:
        return lambda _: value

    def arm(read: Callable[[Arm], Value]) -> Callable[[Controller], Value]:
        return lambda controller: read(controller.arm)

    table: dict[str, tuple[str, Callable[[Controller], Value]]] = {
        "timestamp": ("DOUBLE", lambda c: c.timestamp),
        "target_q": ("VECTOR6D", arm(lambda a: a.joints)),
        "target_qd": ("VECTOR6D", arm(lambda a: a.joint_speeds)),
        "target_qdd": ("VECTOR6D", const(six_zeros)),
        "target_current": ("VECTOR6D", const(six_zeros)),
        "target_moment": ("VECTOR6D", const(six_zeros)),
        "actual_q": ("VECTOR6D", arm(lambda a: a.joints)),
        "actual_qd": ("VECTOR6D", lambda c: c.measured_speeds),
        "actual_current": ("VECTOR6D", const(six_zeros)),
        "joint_control_output": ("VECTOR6D", const(six_zeros)),
        "actual_TCP_pose": ("VECTOR6D", lambda c: c.measured),
        "actual_TCP_speed": ("VECTOR6D", arm(lambda a: a.tcp_speed)),
        "actual_TCP_force": ("VECTOR6D", const(six_zeros)),
        "target_TCP_pose": ("VECTOR6D", arm(lambda a: a.tcp_pose)),
        "target_TCP_speed": ("VECTOR6D", arm(lambda a: a.tcp_speed)),
        "actual_digital_input_bits": ("UINT64", lambda c: c.inputs),
        "actual_digital_output_bits": ("UINT64", lambda c: c.outputs),
        "joint_temperatures": ("VECTOR6D", const([28.0] * 6)),
        "actual_execution_time": ("DOUBLE", const(0.0)),
        "robot_mode": ("INT32", arm(lambda a: a.mode)),
        "joint_mode": ("VECTOR6INT32", const([253] * 6)),
        "safety_mode": ("INT32", arm(lambda a: a.safety)),
        "safety_status": ("INT32", arm(lambda a: a.safety)),
        "actual_tool_accelerometer": ("VECTOR3D", const([0.0, 0.0, -9.81])),
        "speed_scaling": ("DOUBLE", arm(lambda a: a.slider)),
        "target_speed_fraction": ("DOUBLE", arm(lambda a: a.slider)),
        "actual_momentum": ("DOUBLE", const(0.0)),
        "actual_main_voltage": ("DOUBLE", const(48.0)),
        "actual_robot_voltage": ("DOUBLE", const(48.0)),
        "actual_robot_current": ("DOUBLE", const(0.5)),
        "actual_joint_voltage": ("VECTOR6D", const([48.0] * 6)),
        "runtime_state": ("UINT32", lambda c: c.runtime),
        "robot_status_bits": ("UINT32", lambda c: c.robot_status_bits),
        "safety_status_bits": ("UINT32", lambda c: c.safety_status_bits),
        "payload": ("DOUBLE", arm(lambda a: a.payload_kg)),
        "payload_cog": ("VECTOR3D", const([0.0] * 3)),
        "payload_inertia": ("VECTOR6D", const(six_zeros)),
        "tcp_offset": ("VECTOR6D", arm(lambda a: a.tcp)),
        "ft_raw_wrench": ("VECTOR6D", const(six_zeros)),
    }
    for name in ("input0", "input1", "output0", "output1"):
        table[f"standard_analog_{name}"] = ("DOUBLE", const(0.0))
    for name, kind, values in (
        ("output_int_register", "INT32", lambda r: r.int_out),
        ("output_double_register", "DOUBLE", lambda r: r.double_out),
        ("input_int_register", "INT32", lambda r: r.int_in),
        ("input_double_register", "DOUBLE", lambda r: r.double_in),
    ):
        for number in range(REGISTERS):
            table[f"{name}_{number}"] = (kind, _register(values, number))
    return {name: Variable(*entry) for name, entry in table.items()}


def _register(
    values: Callable[[Registers], Sequence[float]], number: int
) -> Callable[[Controller], Value]:
    return lambda controller: values(controller.registers)[number]


def _inputs() -> dict[str, str]:
    table = {
        "input_bit_registers0_to_31": "UINT32",
        "input_bit_registers32_to_63": "UINT32",
        "speed_slider_mask": "UINT32",
        "speed_slider_fraction": "DOUBLE",
        "standard_analog_output_mask": "UINT8",
        "standard_analog_output_type": "UINT8",
        "standard_analog_output_0": "DOUBLE",
        "standard_analog_output_1": "DOUBLE",
        "external_force_torque": "VECTOR6D",
    }
    for group in OUTPUT_GROUPS:
        table[group] = table[f"{group}_mask"] = "UINT8"
    for n in range(REGISTERS):
        table[f"input_int_register_{n}"] = "INT32"
        table[f"input_double_register_{n}"] = "DOUBLE"
    return table


# Where each group's first line lies among the output bits.
OUTPUT_GROUPS = {
    "standard_digital_output": 0,
    "configurable_digital_output": 8,
    "tool_digital_output": 16,
}
OUTPUTS = _outputs()
INPUTS = _inputs()


class Server:
    """All RTDE connections of one controller."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.owners: dict[str, Connection | None] = {}
        self._connections: set[Connection] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to one client until it leaves."""
        connection = Connection(self, writer)
        self._connections.add(connection)
        try:
            while True:
                size, kind = struct.unpack(">HB", await reader.readexactly(3))
                payload = await reader.readexactly(max(0, size - 3))
                if kind != _DATA:
                    await self.thawed.wait()
                connection.receive(kind, payload)
        finally:
            self._connections.discard(connection)
            for name in [name for name, owner in self.owners.items() if owner is connection]:
                del self.owners[name]

    def claim(self) -> None:
        """Hold the input registers, as an active fieldbus does."""
        self.owners.update((name, None) for name in INPUTS if "register" in name)

    def unclaim(self) -> None:
        """Let go of registers that no connection holds."""
        self.owners = {n: owner for n, owner in self.owners.items() if owner in self._connections}

    def stream(self) -> None:
        """Send each connection its package where one is due; called once a tick."""
        if self.thawed.is_set():
            for connection in tuple(self._connections):
                connection.stream()


class Connection:
    """One client: what it asked to be sent and what it may send."""

    def __init__(self, server: Server, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._controller = server.controller
        self._writer = writer
        self._outputs: list[tuple[struct.Struct, Variable]] = []
        self._inputs: list[list[tuple[str, struct.Struct]]] = []
        self._frequency_hz = 125.0
        self._credit = 0.0
        self._started = False

    def receive(self, kind: int, payload: bytes) -> None:
        """Answer one package; a data package has no answer."""
        if kind == _DATA:
            self._accept_data(payload)
        elif kind == _VERSION:
            self._send(kind, bytes([payload[:2] == struct.pack(">H", PROTOCOL)]))
        elif kind == _CONTROLLER:
            self._send(kind, struct.pack(">4I", *self._controller.series.version))
        elif kind == _OUTPUTS:
            self._agree_outputs(payload)
        elif kind == _INPUTS:
            self._agree_inputs(payload)
        elif kind == _START:
            self._started = bool(self._outputs)
            self._send(kind, bytes([self._started]))
        elif kind == _PAUSE:
            self._started = False
            self._send(kind, b"\x01")

    def stream(self) -> None:
        """Send the values of this tick, if one is due at the agreed frequency."""
        self._credit = min(1.0, self._credit + self._frequency_hz / self._controller.series.tick_hz)
        if not self._started or self._credit < 1 or self._writer.is_closing():
            return
        self._credit -= 1
        if self._writer.transport.get_write_buffer_size() > BACKLOG_LIMIT_BYTES:
            return
        body = b"".join(
            _packed(packer, variable.read(self._controller)) for packer, variable in self._outputs
        )
        self._send(_DATA, b"\x01" + body)

    def _agree_outputs(self, payload: bytes) -> None:
        (frequency_hz,) = struct.unpack(">d", payload[:8])
        self._frequency_hz = max(1.0, min(frequency_hz, float(self._controller.series.tick_hz)))
        variables = [OUTPUTS.get(name) for name in _names(payload[8:])]
        kinds = [variable.kind if variable else "NOT_FOUND" for variable in variables]
        if None not in variables:
            self._outputs = [(struct.Struct(FORMATS[v.kind]), v) for v in variables if v]
        self._send(_OUTPUTS, b"\x01" + ",".join(kinds).encode())

    def _agree_inputs(self, payload: bytes) -> None:
        """Agree on a recipe; a variable belongs to one connection, in many of its recipes."""
        owners, recipe, kinds = self._server.owners, [], []
        for name in _names(payload):
            kind = INPUTS.get(name, "NOT_FOUND")
            if kind != "NOT_FOUND" and owners.get(name, self) is not self:
                kind = "IN_USE"
            kinds.append(kind)
            if kind in FORMATS:
                recipe.append((name, struct.Struct(FORMATS[kind])))
        usable = len(recipe) == len(kinds)
        if usable:
            owners.update((name, self) for name, _ in recipe)
            self._inputs.append(recipe)
        number = len(self._inputs) if usable else 0
        self._send(_INPUTS, bytes([number]) + ",".join(kinds).encode())

    def _accept_data(self, payload: bytes) -> None:
        """Take a package that is long enough; ur_rtde sends some longer than their recipe."""
        if not payload or not 1 <= payload[0] <= len(self._inputs):
            return
        recipe, start = self._inputs[payload[0] - 1], 1
        if len(payload) - 1 < sum(packer.size for _, packer in recipe):
            return
        values: dict[str, float] = {}
        for name, packer in recipe:
            values[name] = packer.unpack_from(payload, start)[0]
            start += packer.size
        apply(self._controller, values)

    def _send(self, kind: int, payload: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(struct.pack(">HB", len(payload) + 3, kind) + payload)


def apply(controller: Controller, values: dict[str, float]) -> None:
    """Let one package's values take effect together."""
    registers = controller.registers
    for name, value in values.items():
        if name.startswith("input_int_register_"):
            number = int(name.rpartition("_")[2])
            registers.int_in[number] = int(value)
            registers.written[number] = controller.timestamp
        elif name.startswith("input_double_register_"):
            registers.double_in[int(name.rpartition("_")[2])] = value
    for group, first in OUTPUT_GROUPS.items():
        if group in values:
            controller.set_outputs(int(values[f"{group}_mask"]), int(values[group]), first)
    if values.get("speed_slider_mask"):
        controller.arm.slider = max(0.0, min(1.0, values["speed_slider_fraction"]))


def _packed(packer: struct.Struct, value: Value) -> bytes:
    return packer.pack(value) if isinstance(value, int | float) else packer.pack(*value)


def _names(payload: bytes) -> list[str]:
    """Split a list of names; ur_rtde ends it with a comma."""
    return [name for name in payload.decode("ascii", "replace").split(",") if name]
