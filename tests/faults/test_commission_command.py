"""`flexway commission` as the command that an installer runs, against units over real lines."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

from config.loading import load_settings
from firmware_sim.servers.modbus import MeterUnit, Unit
from gateway.cli import flexway
from tests.harness.bench import Battery
from tests.harness.modbus_thread import served

pytestmark = pytest.mark.process
TIMER_S = 5
"""Seconds on the wall: timers of devices count whole ones."""


def wset(unit: Unit) -> list[int]:
    place = unit.controls()
    found = unit.read(place.start, len(place))
    assert found is not None
    return found


class Ran(NamedTuple):
    code: int
    out: str
    err: str
    unit: Battery
    before: list[int]


class Running:
    """One real process on a unit of its own."""

    def __init__(self, unit: Battery, *words: str) -> None:
        self.unit, self.before = unit, wset(unit)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "commission", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def ended(self) -> Ran:
        out, err = self.process.communicate(timeout=110)
        return Ran(self.process.returncode, out, err, self.unit, self.before)


def real() -> Battery:
    return Battery(time.monotonic)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("commission")
    (made / "flexway.toml").write_text("lab = true\n\n[api]\nport = 0\n")
    return made


@pytest.fixture(scope="module")
def runs(folder: Path) -> Iterator[dict[str, Ran]]:
    """Every run, side by side: each mostly waits for timers."""
    names = ("whole", "SIGINT", "SIGTERM", "SIGHUP")
    units = {name: real() for name in names}
    with ExitStack() as stack:
        running: dict[str, Running] = {}
        for name, unit in units.items():
            port = stack.enter_context(served({1: unit}))
            extra = ["--write", str(folder / "flexway.toml"), "--device-id", "bat-7"]
            timer = str(TIMER_S if name == "whole" else 600)
            running[name] = Running(
                unit, f"127.0.0.1:{port}", "--unit", "1", "--rating-kw", "5", "--yes",
                "--timer-s", timer, *(extra if name == "whole" else []),
            )  # fmt: skip
        for name in names[1:]:
            one = running[name]
            one.until(lambda one=one: one.unit.commanded_kw() is not None)  # type: ignore[misc]
            one.process.send_signal(signal.Signals[name])
            one.process.send_signal(signal.Signals[name])  # impatience changes nothing
        yield {name: one.ended() for name, one in running.items()}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupted_test_leaves_the_unit_as_it_was(runs: dict[str, Ran], name: str) -> None:
    ran = runs[name]
    assert ran.code == 1, ran.err
    assert "interrupted: restoring the device" in ran.err
    assert "every register is as it was" in ran.out
    assert "no entry" in ran.out
    assert wset(ran.unit) == ran.before


def test_a_whole_test_writes_an_entry_that_passes_the_check(
    runs: dict[str, Ran], folder: Path
) -> None:
    ran = runs["whole"]
    assert ran.code == 0, (ran.out, ran.err)
    assert wset(ran.unit) == ran.before
    assert 'lease = "revert_timer"' in ran.out
    checked = CliRunner().invoke(flexway, ["check", "--config", str(folder / "flexway.toml")])
    assert checked.exit_code == 0, checked.output
    device = load_settings(folder / "flexway.toml").modbus.devices[0]
    assert (device.device_id, device.serial, device.control) == ("bat-7", "S1", "wset")
    assert (device.profile.lease, device.lease_restarts_on) == ("revert_timer", "enable")
    assert (device.profile.min_kw, device.profile.max_kw) == (-5.0, 5.0)
    assert device.profile.capacity_kwh == pytest.approx(10.0)


def test_the_record_says_what_was_measured_on_which_firmware(
    runs: dict[str, Ran], folder: Path
) -> None:
    assert runs["whole"].code == 0
    (file,) = (folder / "commissioning").glob("bat-7-*.json")
    record = json.loads(file.read_text())
    assert record["nameplate"] == {
        "manufacturer": "Flexway Sim", "model": "Battery", "serial": "S1", "version": "1.2.3",
    }  # fmt: skip
    assert record["tool"].startswith("flexway ")
    assert record["findings"]["timer"]["reverted_after_s"] == pytest.approx(TIMER_S, abs=3)
    assert record["verdict"]["lease"] == "revert_timer"


def test_the_plan_says_every_write_in_order_before_anything_is_written(
    runs: dict[str, Ran],
) -> None:
    shown = runs["whole"].out
    names = ("WSetRvrtTms", "WSetRvrt ", "WSetEnaRvrt", "WSetMod", "WSet ", "WSetEna ")
    places = [shown.index(f"704 {name}") for name in names]
    assert places == sorted(places)
    assert "704 WSet                   at 40249: 700 = 0x0000 0x02BC" in shown
    assert "worst case  0.5 kW" in shown
    assert "kWh" in shown


def invoke(*words: str) -> Result:
    return CliRunner().invoke(flexway, ["commission", *words])


@pytest.fixture(scope="module")
def street() -> Iterator[tuple[str, dict[int, Unit]]]:
    units: dict[int, Unit] = {1: real(), 2: MeterUnit("meter-1", serial="M-1"), 3: real()}
    units[3]._put(701, "InvSt", 6)
    with served(units) as port:
        yield f"127.0.0.1:{port}", units


def test_without_yes_nothing_is_written(street: tuple[str, dict[int, Unit]]) -> None:
    address, units = street
    before = wset(units[1])
    done = invoke(address, "--unit", "1", "--rating-kw", "5", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["dry_run"]
    assert document["plan"]["target_kw"] == pytest.approx(0.7)
    assert [write["point"] for write in document["writes"]["step"]][-1] == "704 WSetEna"
    assert "nothing was written" in done.stderr
    assert wset(units[1]) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--unit", "1", "--yes"], "give --rating-kw"),
        (["--unit", "2", "--yes", "--rating-kw", "5"], "none of the controls"),
        (["--unit", "3", "--yes", "--rating-kw", "5"], "InvSt says FAULT"),
        (["--unit", "1", "--yes", "--rating-kw", "5", "--control", "storage_124"],
         "does not offer storage_124; it offers wset, wmaxlim_704"),
        (["--unit", "1", "--yes", "--rating-kw", "5", "--step-kw", "9"], "more than its rating"),
        ([], "give --unit"),
    ],
)  # fmt: skip
def test_what_cannot_be_tested_is_refused_with_the_reason(
    street: tuple[str, dict[int, Unit]], words: list[str], said: str
) -> None:
    address, units = street
    before = wset(units[1])
    done = invoke(address, *words)
    assert done.exit_code in {1, 2}
    assert said in done.stderr
    assert wset(units[1]) == before


def written(folder: Path, text: str) -> Path:
    file = folder / "flexway.toml"
    file.write_text(text)
    return file


DEVICE = """
[[modbus.devices]]
device_id = "bat-1"
host = "127.0.0.1"
port = {port}
unit = {unit}
role = "battery"
profile = {{ min_kw = -2.0, max_kw = 4.0, capacity_kwh = 10.0, writes_per_day = 300 }}
"""


@pytest.mark.parametrize("unit", [1, 9])
def test_an_entry_that_is_there_is_never_overwritten(
    street: tuple[str, dict[int, Unit]], tmp_path: Path, unit: int
) -> None:
    """The same device id, or the same unit on the same line: said before the test."""
    address, units = street
    port = address.rpartition(":")[2]
    text = "lab = true\n" + DEVICE.format(port=port, unit=unit)
    file, before = written(tmp_path, text), wset(units[1])
    name = "bat-1" if unit == 9 else "another"
    done = CliRunner().invoke(
        flexway, ["commission", address, "--unit", "1", "--rating-kw", "5", "--yes",
                  "--device-id", name, "--write", str(file)],
    )  # fmt: skip
    assert done.exit_code != 0
    assert "has an entry already" in str(done.exception)
    assert (file.read_text(), wset(units[1])) == (text, before)


def test_a_device_of_the_configuration_is_found_by_its_name(
    street: tuple[str, dict[int, Unit]], tmp_path: Path
) -> None:
    """Its rating bounds the step where the unit does not say one."""
    address, _ = street
    text = "lab = true\n[api]\nport = 0\n" + DEVICE.format(port=address.rpartition(":")[2], unit=1)
    file = written(tmp_path, text)
    done = CliRunner().invoke(flexway, ["commission", "bat-1", "--config", str(file), "--json"])
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)["plan"]
    assert plan["rating"] == {"inject_kw": 4.0, "absorb_kw": 2.0}
    assert plan["target_kw"] == pytest.approx(0.6)


def test_help_explains_itself_with_examples() -> None:
    done = invoke("--help")
    assert done.exit_code == 0
    assert "flexway commission 192.168.1.40 --unit 1" in done.output
