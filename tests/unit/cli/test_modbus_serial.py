"""`flexway modbus` on a serial line (a pair of pseudo-terminals) and through a serial server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner, Result

from adapters.modbus.lines import Line, Transport
from firmware_sim.servers.modbus import BatteryUnit, MeterUnit
from gateway.cli import flexway
from tests.harness.modbus_frames import Rtu
from tests.harness.modbus_server import Faulty, serving

pytestmark = pytest.mark.process


@contextmanager
def on_a(transport: Transport) -> Iterator[Line]:
    """A battery (3) and a meter (7) on such a line, served by a thread with its own loop."""
    battery = BatteryUnit("bat-1", serial="B-7", capacity_kwh=8.0)
    battery.publish(power_kw=0.0, soc_kwh=5.0)
    meter = MeterUnit("meter-1", serial="M-7")
    lines: list[Line] = []
    there, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(Faulty({3: battery, 7: meter}, Rtu(), 0.2), transport) as line:
            lines.append(line)
            there.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert there.wait(10)
        yield lines[0]
    finally:
        done.set()
        thread.join()


def words_of(line: Line) -> list[str]:
    if line.serial is None:
        return [f"{line.host}:{line.port}", "--transport", "rtu_over_tcp"]
    port = line.serial
    return ["--serial", port.device, "--baudrate", str(port.baudrate), "--parity", port.parity,
            "--stopbits", str(port.stopbits)]  # fmt: skip


def run(*words: str) -> Result:
    return CliRunner().invoke(flexway, ["modbus", *words])


@pytest.mark.parametrize("transport", ["rtu", "rtu_over_tcp"])
def test_scan_and_read_find_units_on_a_serial_line(transport: Transport) -> None:
    with on_a(transport) as line:
        done = run("scan", *words_of(line), "--units", "0-9", "--timeout", "0.1", "--json")
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        read = run("read", *words_of(line), "--unit", "3", "--model", "713")
    assert found["transport"] == transport
    assert [(one["unit"], one["identity"]["serial"]) for one in found["units"]] == [
        (3, "B-7"), (7, "M-7"),
    ]  # fmt: skip
    assert ("serial_line" in found) is (transport == "rtu")
    assert read.exit_code == 0, read.output
    assert "WHRtg" in read.stdout


def test_commissioning_plans_on_a_serial_line() -> None:
    with on_a("rtu") as line:
        done = CliRunner().invoke(
            flexway, ["commission", *words_of(line), "--unit", "3", "--rating-kw", "5", "--json"]
        )
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert plan["nameplate"]["serial"] == "B-7"
    assert plan["plan"]["offered"]["control"] == "wset"
    assert plan["where"].endswith("unit 3")


def test_a_long_scan_says_beforehand_how_long_it_takes_at_most() -> None:
    with on_a("rtu") as line:
        done = run("scan", *words_of(line), "--units", "3,7,10-30", "--timeout", "0.25")
    assert done.exit_code == 0, done.output
    first = done.stderr.splitlines()[0]
    # 115200 baud: 263 characters of 11 bits are 25 ms, the silence 1.75 ms.
    assert "asking 23 numbers" in first
    assert "about 7 s at most, 0.28 s for each that is free" in first


def test_a_serial_line_that_is_not_there_is_said_with_what_to_check() -> None:
    done = run("scan", "--serial", "/dev/no-such-line", "--units", "1")
    assert done.exit_code == 1
    assert "/dev/no-such-line cannot be reached" in done.stderr
    assert "19200 baud, parity even, 1 stop bits" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scan"], "one of the two"),
        (["scan", "h", "--serial", "/dev/ttyUSB0"], "one of the two"),
        (["scan", "h", "--baudrate", "9600"], "go with --serial"),
        (["scan", "h", "--transport", "rtu"], "needs --serial"),
        (["scan", "--serial", "/dev/ttyUSB0", "--transport", "tcp"], "instead of --serial"),
        (["read", "--serial", "/dev/ttyUSB0", "--unit", "0"], "broadcast"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(words: list[str], said: str) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert said in done.stderr
