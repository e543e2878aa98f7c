"""Modbus TCP servers that cost as little as they can, in a process of their own.

Every port is one device, under any unit number, with the same registers: models 1, 103, one of the
maker's own and 713, so that power and stored energy lie within 60 registers. Hand-made
and answering from a table, so that whoever asks is the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvloop

from adapters.modbus.wire import BASES, END_MODEL, MARKER, encode, load_model

HOST = "127.0.0.1"
REGISTERS = 60
"""From `W` of model 103 to `WH_SF` of model 713."""
POWER_KW, STORED_KWH = 1.25, 3.2
_MAKERS_OWN, _MAKERS_LENGTH = 64_001, 12
_REQUEST = 12


def image() -> list[int]:
    """Registers from the marker to the end model."""
    registers = list(MARKER)
    for number, values in (
        (1, {"Mn": "Flexway Bench", "SN": "B1"}),
        (103, {"W": POWER_KW * 1000.0}),
        (_MAKERS_OWN, {}),
        (713, {"WHAvail": STORED_KWH * 1000.0}),
    ):
        if number == _MAKERS_OWN:
            registers += [number, _MAKERS_LENGTH, *range(_MAKERS_LENGTH)]
            continue
        model = load_model(number)
        body = [number, model.length - 2, *([0] * (model.length - 2))]
        for name, value in values.items():
            point = model.points[name]
            body[point.offset : point.offset + point.size] = encode(model, name, value, 0)
        registers += body
    return [*registers, END_MODEL, 0]


def first_register() -> int:
    """Address of `W`."""
    return BASES[0] + len(MARKER) + load_model(1).length + load_model(103).points["W"].offset


class Answering(asyncio.Protocol):
    """Answers whole requests for registers; each answer is made once and kept."""

    def __init__(self, registers: Sequence[int], answers: dict[bytes, bytes]) -> None:
        self._registers = registers
        self._answers = answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), _REQUEST):
            asked = data[start + 6 : start + _REQUEST]
            answer = self._answers.get(asked) or self._made(asked)
            self._transport.write(data[start : start + 2] + answer)  # type: ignore[attr-defined]

    def _made(self, asked: bytes) -> bytes:
        unit, function, address, count = struct.unpack(">BBHH", asked)
        at = address - BASES[0]
        held = self._registers[at : at + count] if at >= 0 else []
        if len(held) < count or function != 3:
            pdu = bytes([function | 0x80, 2])
        else:
            pdu = bytes([function, 2 * count]) + struct.pack(f">{count}H", *held)
        self._answers[asked] = struct.pack(">HHB", 0, len(pdu) + 1, unit) + pdu
        return self._answers[asked]


async def serve(devices: int) -> None:
    loop = asyncio.get_running_loop()
    registers, answers = image(), dict[bytes, bytes]()
    servers = [
        await loop.create_server(lambda: Answering(registers, answers), HOST, 0, backlog=16)
        for _ in range(devices)
    ]
    sys.stdout.write(json.dumps([server.sockets[0].getsockname()[1] for server in servers]) + "\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def served(devices: int) -> Iterator[list[int]]:
    """Serve devices while the block runs; yields their ports."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.modbus_units", "--devices", str(devices)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


def allow_many_sockets() -> None:
    """As many descriptors as the system lets a process have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, required=True)
    allow_many_sockets()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args().devices))
