"""`flexway check --probe` against real servers: it finds what is away, and changes nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from config.settings import ModbusDeviceSettings, ModbusSettings, Settings
from config.writing import to_toml
from firmware_sim.servers.modbus import BatteryUnit, ModbusServer
from gateway.cli.probes import Probe, redis_servers, run_probes
from tests.harness.lab import free_port, mosquitto, wait_for_port
from tests.harness.modbus_frames import Rtu
from tests.harness.modbus_server import Faulty, serving

pytestmark = pytest.mark.process
PROFILE = {"min_kw": -5.0, "max_kw": 5.0, "fallback_kw": 0.0}


def unit(port: int, device: str, number: int, serial: str) -> dict[str, Any]:
    return {
        "device_id": device, "host": "127.0.0.1", "port": port, "unit": number,
        "role": "battery", "serial": serial, "profile": PROFILE,
    }  # fmt: skip


def check(folder: Path, **sections: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and each probe by the first word of its name or by its device."""
    path = folder / "flexway.toml"
    path.write_text(to_toml({"lab": True, "api": {"port": free_port()}, **sections}))
    command = [sys.executable, "-m", "gateway", "check", "--config", str(path), "--probe",
               "--timeout", "2", "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    probes = {probe["name"]: probe for probe in json.loads(done.stdout)["probes"]}
    return done.returncode, probes


def probe(settings: Settings, timeout_s: float = 2.0) -> dict[str, Probe]:
    found: list[Probe] = []
    asyncio.run(run_probes(settings, timeout_s, found.append))
    return {each.name: each for each in found}


async def test_each_unit_is_asked_for_its_serial_number() -> None:
    written: list[Any] = []
    units = {
        number: BatteryUnit(f"bat-{number}", serial=f"SN{number}", capacity_kwh=5.0,
                            log=written.append)
        for number in (1, 2)
    }  # fmt: skip
    async with ModbusServer(units) as server:
        devices = tuple(
            ModbusDeviceSettings.model_validate(unit(server.port, *rest))
            for rest in (("right", 1, "SN1"), ("wrong", 2, "SN1"), ("any", 2, ""), ("none", 3, ""))
        )
        settings = Settings(lab=True, modbus=ModbusSettings(devices=devices))
        found: list[Probe] = []
        await run_probes(settings, 1.0, found.append)
        where = f"127.0.0.1:{server.port} unit"
    by_name = {each.name: each for each in found}
    assert by_name[f"modbus right ({where} 1)"].ok
    wrong = by_name[f"modbus wrong ({where} 2)"]
    assert not wrong.ok
    assert "'SN2' instead of 'SN1'" in wrong.detail
    assert "serial = 'SN2'" in wrong.remedy
    assert "pin it with `serial`" in by_name[f"modbus any ({where} 2)"].detail
    assert not by_name[f"modbus none ({where} 3)"].ok
    assert not [entry for entry in written if "register" in json.dumps(entry)]


async def test_units_on_a_serial_line_are_asked_through_it() -> None:
    battery = BatteryUnit("bat-7", serial="SN7", capacity_kwh=5.0)
    async with serving(Faulty({7: battery}, Rtu(), delay_s=0.0), "rtu") as line:
        assert line.serial is not None
        port = {"port": line.serial.device, "baudrate": 115_200, "parity": "none", "stopbits": 2}
        bound = {"transport": "rtu", "serial_line": port, "role": "battery", "profile": PROFILE}
        devices = tuple(
            ModbusDeviceSettings.model_validate({"device_id": name, "unit": number, **bound})
            for name, number in (("there", 7), ("not-there", 8))
        )
        settings = Settings(lab=True, modbus=ModbusSettings(devices=devices))
        found: list[Probe] = []
        await run_probes(settings, 1.0, found.append)
    by_name = {each.name: each for each in found}
    there = by_name[f"modbus there ({line.name} unit 7)"]
    assert there.ok
    assert "serial 'SN7'" in there.detail
    assert not by_name[f"modbus not-there ({line.name} unit 8)"].ok


def test_a_site_that_answers_is_all_right(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as port:
        device = {"device_id": "ev-1", "organisation": "o", "profile": PROFILE}
        code, probes = check(tmp_path, mqtt={"port": port, "tls": False, "devices": [device]})
    assert code == 0
    assert probes[f"mqtt 127.0.0.1:{port}"]["detail"] == "logged in, may subscribe"
    assert not (tmp_path / "data").exists()


def test_a_broker_that_refuses_the_login_is_found(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("someone:else\n")
    (tmp_path / "users").chmod(0o600)
    subprocess.run(["mosquitto_passwd", "-U", str(tmp_path / "users")], check=True)
    (tmp_path / "users").chmod(0o644)
    (tmp_path / "password").touch(mode=0o600)
    (tmp_path / "password").write_text("wrong")
    device = {"device_id": "ev-1", "organisation": "o", "profile": PROFILE}
    only = ("per_listener_settings false", f"password_file {tmp_path / 'users'}", "user root")
    with mosquitto(tmp_path, *only) as port:
        # The harness lets anybody in who gives no name: a wrong password is still refused.
        mqtt = {"port": port, "tls": False, "username": "gateway", "devices": [device],
                "password_file": str(tmp_path / "password")}  # fmt: skip
        code, probes = check(tmp_path, mqtt=mqtt)
    assert code == 1
    found = probes[f"mqtt 127.0.0.1:{port}"]
    assert not found["ok"]
    assert "uthori" in found["detail"]


def test_a_broker_that_is_away_is_found_within_the_time_limit(tmp_path: Path) -> None:
    port = free_port()
    device = {"device_id": "ev-1", "organisation": "o", "profile": PROFILE}
    code, probes = check(tmp_path, mqtt={"port": port, "tls": False, "devices": [device]})
    assert code == 1
    assert not probes[f"mqtt 127.0.0.1:{port}"]["ok"]


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        device = {"device_id": "ev-1", "organisation": "o", "profile": PROFILE}
        settings = Settings.model_validate({
            "lab": True, "mqtt": {"port": port, "tls": False, "devices": [device]},
            "modbus": {"timeout_s": 0.3, "devices": [unit(port, "bat-1", 1, "SN1")]},
            "store": {"database": f"sqlite:///{tmp_path}/m.db"}, "api": {"port": free_port()},
        })  # fmt: skip
        found = probe(settings, 0.5)
    assert not found[f"mqtt 127.0.0.1:{port}"].ok
    assert not found[f"modbus bat-1 (127.0.0.1:{port} unit 1)"].ok


def test_a_taken_port_is_found(tmp_path: Path) -> None:
    ven = {"device_id": "h", "ven_name": "h", "profile": PROFILE}
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        code, probes = check(tmp_path, openadr={"port": port, "vens": [ven]})
    assert code == 1
    assert not probes[f"openadr 127.0.0.1:{port}"]["ok"]
    assert "ss -ltnp" in probes[f"openadr 127.0.0.1:{port}"]["remedy"]


def test_a_damaged_database_is_found_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "market.db"
    path.write_bytes(b"this is no database, it is a letter to a friend" * 100)
    before = path.read_bytes()
    code, probes = check(tmp_path, store={"database": f"sqlite:///{path}"})
    assert code == 1
    assert "not a database" in probes["database"]["detail"]
    assert path.read_bytes() == before


class BusSection(BaseModel):
    kind: str = "redis"
    url: str
    password_file: Path | None = None


class WithBus(Settings):
    bus: BusSection


@contextmanager
def redis(folder: Path, password: str) -> Iterator[int]:
    port = free_port()
    binary = shutil.which("redis-server")
    assert binary is not None
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
               "--dir", str(folder), "--requirepass", password]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def test_redis_is_pinged_with_the_password_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim\n")
    (tmp_path / "wrong").write_text("falsch\n")
    with redis(tmp_path, "geheim") as port:
        url = f"redis://127.0.0.1:{port}/0"
        store = {"database": f"sqlite:///{tmp_path}/m.db"}
        for file, ok in (("password", True), ("wrong", False)):
            bus = BusSection(url=url, password_file=tmp_path / file)
            settings = WithBus.model_validate(
                {"lab": True, "bus": bus, "store": store, "api": {"port": free_port()}}
            )
            assert list(redis_servers(settings)) == [(url, tmp_path / file)]
            unused = bus.model_copy(update={"kind": "local"})
            assert not list(redis_servers(settings.model_copy(update={"bus": unused})))
            assert probe(settings)[f"redis {url}"].ok is ok
    assert not probe(settings)[f"redis {url}"].ok
