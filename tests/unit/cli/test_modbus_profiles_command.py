"""`flexway modbus profiles`, and reading a device by one, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from config.profiles import shipped
from config.settings import ModbusDeviceSettings, ModbusSettings, ProfileSettings, Settings
from gateway.cli import flexway
from gateway.cli.probes import Probe, run_probes
from tests.harness.modbus_thread import served
from tests.harness.registers import SERIAL, HybridInverter

pytestmark = pytest.mark.process


def run(*words: str) -> Result:
    return CliRunner().invoke(flexway, ["modbus", *words])


@pytest.fixture
def inverter() -> HybridInverter:
    made = HybridInverter("bat-1")
    made.publish(power_kw=-1.5)
    return made


@pytest.fixture
def address(inverter: HybridInverter) -> Iterator[str]:
    with served({1: inverter}) as port:
        yield f"127.0.0.1:{port}"


def test_the_list_says_standing_controls_and_documents() -> None:
    done = run("profiles")
    assert done.exit_code == 0, done.output
    for name in shipped():
        assert f"{name}  " in done.stdout
    assert done.stdout.count("unverified") == len(shipped())
    assert "timer up to 1000 s, restarts on timer, then own behaviour" in done.stdout
    assert "no lease, the gateway's watchdog has to end it" in done.stdout
    assert "third party: modbus_sungrow.yaml" in done.stdout
    assert set(json.loads(run("profiles", "--json").stdout)) == set(shipped())


def test_one_profile_shows_every_point_with_where_it_stands() -> None:
    done = run("profiles", "sungrow-sh")
    assert "13079 holding ems_heartbeat            uint16 s, written" in done.stdout
    assert "[page 13, no. 37; page 21, item 3]" in done.stdout
    assert "bohdan-s/Sungrow-Inverter" in done.stdout
    wrong = run("profiles", "sungrow")
    assert wrong.exit_code == 1
    assert "sungrow-sh" in wrong.output


def test_a_file_of_ones_own_is_checked_with_line_numbers(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("title: Mine\nmanufactorer: Me\nmodels: [M]\nrole: fridge\n")
    done = run("profiles", "--check", str(mine))
    assert done.exit_code == 1
    assert f"{mine}:2 manufactorer" in done.stdout
    assert "-> did you mean 'manufacturer'?" in done.stdout
    assert f"{mine}:4 role" in done.stdout
    (told,) = json.loads(run("profiles", "--check", "--json", str(mine)).stdout)
    assert {"manufactorer": 2, "role": 4}.items() <= {
        finding["key"]: finding["line"] for finding in told["findings"]
    }.items()
    good = run("profiles", "--check", "keba-p30")
    assert good.exit_code == 0
    assert "ok      keba-p30" in good.stdout
    assert run("profiles", "--check").exit_code == 2


def test_read_shows_points_by_name_with_units_and_meanings(address: str) -> None:
    done = run("read", address, "--unit", "1", "--profile", "sungrow-sh")
    assert done.exit_code == 0, done.output
    assert f"serial                       {SERIAL}" in done.stdout
    assert "battery_power                -1500 W" in done.stdout
    assert "ems_mode                     0 (self_consumption)" in done.stdout
    told = json.loads(
        run("read", address, "--unit", "1", "--profile", "sungrow-sh", "--json").stdout
    )
    assert told["points"]["battery_soc"]["value"] == 47.3
    assert told["points"]["battery_command"]["meaning"] == ["stop"]


def test_what_the_device_refuses_is_said_beside_the_others(
    inverter: HybridInverter, address: str
) -> None:
    del inverter.input[13033]
    done = run("read", address, "--unit", "1", "--profile", "sungrow-sh")
    assert "active_power                 cannot be read: unit 1 refuses" in done.stdout
    assert "battery_power                -1500 W" in done.stdout


def test_watch_marks_what_changed(inverter: HybridInverter, address: str) -> None:
    words = ("--unit", "1", "--profile", "sungrow-sh", "--every", "0.1", "--times", "2")
    done = run("watch", address, *words)
    assert done.exit_code == 0, done.output
    assert "0 changed" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--profile", "sungrow"), "sungrow-sh"),
        (("--profile", "sungrow-sh", "--model", "103"), "give it or --profile"),
    ],
)
def test_what_cannot_be_read_says_why(address: str, words: tuple[str, ...], told: str) -> None:
    done = run("read", address, "--unit", "1", *words)
    assert done.exit_code != 0
    assert told in done.output


def test_a_device_that_is_silent_costs_one_wait_and_says_what_to_do(
    inverter: HybridInverter, address: str
) -> None:
    inverter.faults.silent = True
    done = run("read", address, "--unit", "1", "--profile", "sungrow-sh", "--timeout", "0.2")
    assert done.exit_code == 1
    assert "takes longer than 0.2 s" in done.output


async def test_the_check_probes_a_device_by_its_profile(
    inverter: HybridInverter, address: str, tmp_path: Path
) -> None:
    def device(name: str, **fields: object) -> ModbusDeviceSettings:
        return ModbusDeviceSettings(
            device_id=name, host="127.0.0.1", port=int(address.rpartition(":")[2]), role="battery",
            profile=ProfileSettings(min_kw=-5, max_kw=5), **fields,
        )  # fmt: skip

    async def probed(*devices: ModbusDeviceSettings) -> dict[str, Probe]:
        found: list[Probe] = []
        settings = Settings(lab=True, modbus=ModbusSettings(devices=devices))
        await run_probes(settings, 2.0, found.append)
        return {probe.name.split()[1]: probe for probe in found if probe.name.startswith("modbus")}

    found = await probed(
        device("right", device_profile="sungrow-sh", serial=SERIAL),
        device("wrong", device_profile="sungrow-sh", serial="X"),
    )
    assert found["right"].ok
    assert found["right"].detail.endswith("-1.500 kW now")
    assert not found["wrong"].ok
    assert "instead of 'X'" in found["wrong"].detail
    assert await probed(device("none", device_profile="no-such")) == {}
