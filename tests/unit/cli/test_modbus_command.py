"""`flexway modbus` against simulated units over real sockets."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from firmware_sim.servers.modbus import BatteryUnit, InverterUnit, MeterUnit, Unit
from gateway.cli import flexway
from tests.harness.modbus_thread import served

pytestmark = pytest.mark.process
FREE_S = "0.1"
"""How long a free unit number may cost here, on the loopback."""


class Counted(dict[int, Unit]):
    """Units behind an address; counts how often each number was asked for."""

    def __init__(self, units: dict[int, Unit]) -> None:
        super().__init__(units)
        self.asked: Counter[int] = Counter()

    def get(self, number: int, default: Any = None) -> Any:
        """As the server looks a unit up, once per request."""
        self.asked[number] += 1
        return super().get(number, default)


class Street:
    """A battery, an inverter and a meter behind one address."""

    def __init__(self) -> None:
        self.battery = BatteryUnit("bat-1", serial="B-7", capacity_kwh=8.0)
        self.battery.publish(power_kw=-1.5, soc_kwh=6.0)
        self.inverter = InverterUnit("pv-1", serial="I-7", rated_kw=5.0)
        self.inverter.publish(power_kw=2.25)
        self.meter = MeterUnit("meter-1", serial="M-7")
        self.units = Counted({1: self.battery, 2: self.inverter, 5: self.meter})
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@pytest.fixture
def street() -> Iterator[Street]:
    made = Street()
    with served(made.units) as made.port:
        yield made


def run(*words: str) -> Result:
    return CliRunner().invoke(flexway, ["modbus", *words])


def scanned(street: Street, *words: str) -> dict[int, dict[str, Any]]:
    done = run("scan", street.address, "--json", "--timeout", FREE_S, *words)
    assert done.exit_code == 0, done.output
    return {unit["unit"]: unit for unit in json.loads(done.stdout)["units"]}


def test_scan_says_what_each_unit_is_measures_and_offers(street: Street) -> None:
    found = scanned(street, "--units", "1-6")
    assert {unit: found[unit]["role"] for unit in found} == {
        1: "battery", 2: "inverter", 5: "meter",
    }  # fmt: skip
    battery = found[1]
    assert battery["identity"] == {
        "manufacturer": "Flexway Sim", "model": "BatteryUnit", "serial": "B-7",
    }  # fmt: skip
    assert [model["model"] for model in battery["models"]] == [1, 701, 704, 713]
    assert battery["models"][2]["label"] == "DER AC Controls"
    assert battery["figures"]["power_w"] == -1500
    assert battery["figures"]["soc_percent"] == 75
    assert [one["control"] for one in battery["controls"]] == ["wset", "wmaxlim_704"]
    assert battery["controls"][0] == {
        "control": "wset", "model": 704, "kind": "setpoint", "revert_timer": True,
    }  # fmt: skip
    assert [one["control"] for one in found[2]["controls"]] == ["wmaxlim_123"]
    assert found[2]["figures"]["power_w"] == 2250
    assert found[5]["controls"] == []


def test_scan_shows_the_same_as_a_table_and_its_progress_apart(street: Street) -> None:
    done = run("scan", street.address, "--units", "1,2", "--timeout", FREE_S)
    assert done.exit_code == 0
    assert "unit 1    battery: Flexway Sim BatteryUnit, serial B-7" in done.stdout
    assert "-1500 W, 75.0 %, 6000 Wh, of 8000 Wh" in done.stdout
    assert "wset (setpoint, revert timer)" in done.stdout
    assert "unit 2 answers" in done.stderr
    assert "answers" not in done.stdout


def test_free_numbers_are_asked_once_each(street: Street) -> None:
    """Twenty free numbers: not at three bases each, and not again in full."""
    street.units.asked.clear()
    assert set(scanned(street, "--units", "1,2,10-29")) == {1, 2}
    assert [street.units.asked[unit] for unit in range(10, 30)] == [1] * 20
    assert street.units.asked[1] > 3  # who answers is read in full


def test_a_unit_that_dies_while_it_is_read_is_said_and_the_next_one_read(street: Street) -> None:
    class Dying(InverterUnit):
        asked = 0

        def read(self, address: int, count: int) -> list[int] | None:
            """Says that it is there, and nothing more after its third answer."""
            self.asked += 1
            self.faults.silent = self.asked == 3
            return super().read(address, count)

    street.units[3] = Dying("dying-1", serial="D-7", rated_kw=1.0)
    found = scanned(street, "--units", "3,5")
    assert "gave no answer" in found[3]["problem"]
    assert found[5]["identity"]["serial"] == "M-7"


def test_a_device_that_answers_to_every_number_is_one_device(street: Street) -> None:
    street.units.update(dict.fromkeys(range(10, 31), street.inverter))
    found = scanned(street, "--units", "2,5,10-30")
    assert set(found) == {2, 5}
    assert found[2]["also"] == list(range(10, 31))
    table = run("scan", street.address, "--units", "2,10-30", "--timeout", FREE_S).stdout
    assert "answers as unit 10-30 as well" in table


def test_a_unit_without_sunspec_is_shown_with_the_reason(street: Street) -> None:
    class Foreign(MeterUnit):
        def read(self, _address: int, count: int) -> list[int]:
            """Registers everywhere, and no marker among them."""
            return [7] * count

    street.units[4] = Foreign("foreign-1", serial="F-7")
    found = scanned(street, "--units", "4")
    assert "no SunSpec marker" in found[4]["problem"]
    done = run("read", street.address, "--unit", "4")
    assert done.exit_code == 1
    assert "SunSpec is switched off" in done.stderr


def test_nobody_answers_is_said_and_is_no_success(street: Street) -> None:
    done = run("scan", street.address, "--units", "40-41", "--timeout", FREE_S)
    assert done.exit_code == 1
    assert "no unit answers within 0.1 s" in done.stderr


@pytest.mark.parametrize("command", [("scan",), ("read", "--unit", "1"), ("watch", "--unit", "1")])
def test_a_host_that_cannot_be_reached_is_said_at_once(command: tuple[str, ...]) -> None:
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        done = run(command[0], f"127.0.0.1:{taken.getsockname()[1]}", *command[1:])
    assert done.exit_code == 1
    assert "cannot be reached" in done.stderr
    assert "check that the device is on" in done.stderr


def test_a_unit_that_is_not_there_is_said_with_what_to_do(street: Street) -> None:
    done = run("read", street.address, "--unit", "77", "--timeout", FREE_S)
    assert done.exit_code == 1
    assert "unit 77" in done.stderr
    assert "flexway modbus scan" in done.stderr


def test_read_prints_points_scaled_with_units_and_meanings(street: Street) -> None:
    done = run("read", street.address, "--unit", "1", "--model", "713", "--model", "704")
    assert done.exit_code == 0, done.output
    assert re.search(r"^  WHAvail +6000 WH$", done.stdout, re.MULTILINE)
    assert re.search(r"^  WSetMod +1 \(WATTS\)$", done.stdout, re.MULTILINE)
    assert "model 701" not in done.stdout


def test_read_as_json_has_every_point_and_null_for_what_is_not_implemented(
    street: Street,
) -> None:
    street.meter._put(203, "PhVphA", 2301, 0)
    street.meter._put(203, "V_SF", -1)
    done = run("read", street.address, "--unit", "5", "--json")
    document = json.loads(done.stdout)
    assert [model["model"] for model in document["models"]] == [1, 203]
    points = document["models"][1]["points"]
    assert points["PhVphA"] == {"value": 230.1, "units": "V"}
    assert points["TotVAhExp"] == {"value": None, "units": "VAh"}


def test_read_of_a_model_that_is_not_there_names_those_that_are(street: Street) -> None:
    done = run("read", street.address, "--unit", "2", "--model", "704")
    assert done.exit_code == 1
    assert "has no model 704; it has 1, 103, 123" in done.stderr


def test_a_model_that_is_refused_stands_beside_those_that_are_read(street: Street) -> None:
    class Partly(BatteryUnit):
        def read(self, address: int, count: int) -> list[int] | None:
            """Has model 704 in its list, and no registers for it."""
            inside = address in self.controls() and count > 2
            return None if inside else super().read(address, count)

    street.units[6] = Partly("partly-1", serial="P-7", capacity_kwh=8.0)
    done = run("read", street.address, "--unit", "6")
    assert done.exit_code == 0, done.output
    assert "cannot be read: unit 6 refuses with exception 2" in done.stdout
    assert "WHRtg" in done.stdout
    asked_for = run("read", street.address, "--unit", "6", "--model", "704")
    assert asked_for.exit_code == 1
    assert "it has no registers there" in asked_for.stderr
    found = scanned(street, "--units", "6")[6]
    assert "model 704: unit 6 refuses" in found["remark"]


def test_watch_marks_what_changed(street: Street) -> None:
    class Moving(MeterUnit):
        def refresh(self) -> None:
            """Another power at each request."""
            self._put(203, "W", self._get(203, "W") + 1)

    street.units[6] = Moving("moving-1", serial="V-7")
    done = run(
        "watch", street.address, "--unit", "6", "--model", "203", "--every", "0.1", "--times", "3"
    )
    assert done.exit_code == 0, done.output
    assert len(re.findall(r"^\* W  ", done.stdout, re.MULTILINE)) == 2
    assert not re.search(r"^\* (?!W )", done.stdout, re.MULTILINE)
    assert done.stdout.count("1 changed") == 2


def test_watch_goes_on_when_one_reading_fails(street: Street) -> None:
    class Failing(MeterUnit):
        asked = 0

        def read(self, address: int, count: int) -> list[int] | None:
            """Has no registers for a moment, after its discovery and one reading."""
            self.asked += count > 2
            return None if self.asked == 2 and count > 2 else super().read(address, count)

    street.units[6] = Failing("failing-1", serial="X-7")
    done = run(
        "watch", street.address, "--unit", "6", "--model", "203", "--every", "0.1", "--times", "3"
    )
    assert done.exit_code == 0, done.output
    assert "no reading: unit 6 refuses with exception 2" in done.stdout
    assert "0 changed" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scan", "host:0"], "HOST:PORT"),
        (["scan", "x:y:99999"], "HOST:PORT"),
        (["scan", ":502"], "HOST:PORT"),
        (["scan", "h", "--units", "5-1"], "the lower first"),
        (["scan", "h", "--units", "1-300"], "0 to 247"),
        (["scan", "h", "--units", "a"], "no unit number"),
        (["read", "h"], "--unit"),
        (["read", "h", "--unit", "256"], "256"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_said(words: list[str], said: str) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.7", "10.0.0.7", 502),
        ("inverter.local:1502", "inverter.local", 1502),
        ("[::1]:1502", "::1", 1502),
        ("::1", "::1", 502),
        ("[::1]", "::1", 502),
    ],
)
def test_addresses_are_read_as_people_write_them(text: str, host: str, port: int) -> None:
    command = flexway.get_command(None, "modbus")
    scan = command.get_command(None, "scan")  # type: ignore[union-attr, arg-type]
    context = scan.make_context("scan", [text, "--units", "1"], resilient_parsing=False)
    assert context.params["address"] == (host, port)


@pytest.mark.parametrize("name", ["scan", "read", "watch"])
def test_help_explains_itself_with_examples(name: str) -> None:
    done = run(name, "--help")
    assert done.exit_code == 0
    assert f"flexway modbus {name} 192.168.1.40" in done.output


def test_the_installed_command_speaks_on_its_own(street: Street) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "modbus", "scan", street.address, "--units", "1,9",
         "--timeout", FREE_S, "--json"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["units"][0]["identity"]["serial"] == "B-7"
    assert done.stderr.splitlines() == ["unit 1 answers"]
