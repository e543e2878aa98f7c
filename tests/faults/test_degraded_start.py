"""One broker or device that is away never stops the start; what cannot work says so."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.children import Child
from tests.harness.lab import free_port, mosquitto, wait_for
from tests.harness.street import Street

pytestmark = pytest.mark.process
VEN = {
    "device_id": "home-1", "ven_name": "home-1",
    "profile": {"min_kw": -3.0, "max_kw": 0.0, "lease": "event_end"},
}  # fmt: skip


@contextmanager
def devices(folder: Path, broker_port: int, modbus_port: int) -> Iterator[None]:
    ready = folder / "devices.ready.json"
    child = Child(
        "devices",
        ["tests.harness.devices", "--broker-port", str(broker_port), "--modbus-port",
         str(modbus_port), "--log", str(folder / "devices.jsonl"), "--ready-file", str(ready)],
        folder,
    )  # fmt: skip
    try:
        child.wait_ready()
        yield
    finally:
        child.stop()


def made(folder: Path, broker_port: int, modbus_port: int) -> Street:
    """A battery and a charger, no site."""
    street = Street(folder, {"broker": broker_port, "bat-1": modbus_port, "vtn": free_port()})
    del street.lab.sections["openadr"]
    street.lab.write_settings()
    return street


def readiness(url: str) -> dict[str, Any]:
    answer = httpx.get(f"{url}/readyz")
    return {"code": answer.status_code, **answer.json()}


def series(url: str, name: str) -> dict[str, float]:
    text = httpx.get(f"{url}/metrics").text
    return {
        sample.labels.get("protocol", ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.slow
def test_what_is_away_at_the_start_is_shown_and_used_once_it_is_there(tmp_path: Path) -> None:
    broker_port, modbus_port = free_port(), free_port()
    street = made(tmp_path, broker_port, modbus_port)
    gateway = street.lab.start()
    url = street.lab.url
    try:
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert readiness(url)["code"] == 503
        assert "mqtt" in readiness(url)["detail"]
        ready = wait_for(
            lambda: (found := readiness(url))["code"] == 200 and found, seconds=40,
            what="a degraded start",
        )  # fmt: skip
        assert ready["status"] == "degraded"
        assert ready["degraded"] == [
            "modbus is not connected", "mqtt is not connected: the broker cannot be reached",
            "2 of 2 devices are stale",
        ]  # fmt: skip
        assert series(url, "flexway_ready") == {"": 1.0}
        assert series(url, "flexway_adapter_up") == {
            "modbus": 0.0, "mqtt": 0.0, "openadr": 0.0, "sparkplug": 0.0, "webhook": 0.0,
        }  # fmt: skip
        assert series(url, "flexway_devices_never_reported")["mqtt"] == 1.0
        with mosquitto(tmp_path, port=broker_port), devices(tmp_path, broker_port, modbus_port):
            wait_for(
                lambda: readiness(url)["status"] == "ready", seconds=90, what="everything to be up"
            )
            assert series(url, "flexway_adapter_up")["mqtt"] == 1.0
            assert series(url, "flexway_devices_never_reported")["mqtt"] == 0.0
            assert series(url, "flexway_devices_connected")["modbus"] == 1.0
    finally:
        assert gateway.stop() == 0
        street.lab.close()


def refused(folder: Path, **sections: Any) -> tuple[int, str]:
    """Exit code and last line of a service that cannot start."""
    street = made(folder, free_port(), free_port())
    street.lab.sections = sections
    settings = street.lab.write_settings()
    gateway = Child("gateway", ["gateway", "serve", "--config", str(settings)], folder)
    code = gateway.wait(40)
    return code, gateway.tail(1)


def test_a_taken_vtn_port_is_one_clear_line(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        code, line = refused(tmp_path, openadr={"port": port, "vens": [VEN]})
    assert code == 3
    assert line.startswith(f"configuration: openadr.port: cannot listen on 127.0.0.1:{port}")


def test_a_database_that_is_away_is_one_clear_line_without_its_password(tmp_path: Path) -> None:
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:*:*:geheim\n")
    passfile.chmod(0o600)
    url = f"postgresql+psycopg://flexway@127.0.0.1:{free_port()}/flexway?passfile={passfile}"
    code, line = refused(tmp_path, store={"database": url, "patience_s": 1.0})
    assert code == 1
    assert line.startswith("error: ")
    assert "the database postgresql+psycopg://flexway@127.0.0.1" in line
    assert "geheim" not in line


def test_a_missing_password_file_is_named_before_anything_starts(tmp_path: Path) -> None:
    profile = {"min_kw": -7.0, "max_kw": 0.0}
    device = {"device_id": "ev-1", "organisation": "o", "profile": profile}
    mqtt = {"tls": False, "username": "g", "password_file": "none", "devices": [device]}
    code, line = refused(tmp_path, mqtt=mqtt)
    assert code == 3
    assert "mqtt.password_file" in line
    assert "does not exist" in line
    assert not (tmp_path / "data").exists()
