"""`flexway check --probe`: asking what the settings name, read only and within a time limit."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiomqtt
import httpx
from pydantic import BaseModel
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from adapters.modbus.adapter import ModbusEndpoint
from adapters.modbus.errors import PointError
from adapters.modbus.link import LineLink, LinkError
from adapters.modbus.registers.definition import RegisterMap
from adapters.modbus.registers.unit import RegisterUnit
from adapters.modbus.sunspec import SunSpecError
from adapters.modbus.unit import SunSpecUnit
from config.files import database_file
from config.settings import Settings
from gateway.bindings import modbus_endpoints
from gateway.bootstrap.adapters import mqtt_broker
from marketplace_core.errors import ConfigError

_AT_ONCE: Final = 64
"""Connections to Modbus hosts that are made at the same time."""
_REDIS: Final = ("redis://", "rediss://", "unix://")
_REFUSED: Final = 128
"""From this reason code on a broker says no (MQTT 5, section 2.4)."""


@dataclass(frozen=True)
class Probe:
    """What one question gave."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


Report = Callable[[Probe], None]


async def run_probes(settings: Settings, timeout_s: float, report: Report) -> None:
    """Ask everything side by side; `report` hears of each answer as it comes."""
    probes: list[Awaitable[None]] = [
        _within(timeout_s, "database", report, _database(settings, timeout_s)),
        _ports(settings, timeout_s, report),
    ]
    probes += [
        _within(timeout_s, f"redis {_without_password(url)}", report, _redis(url, password))
        for url, password in redis_servers(settings)
    ]
    if settings.mqtt.devices:
        name = f"mqtt {settings.mqtt.host}:{settings.mqtt.port}"
        probes.append(_within(timeout_s, name, report, _broker(settings, name, timeout_s)))
    links: dict[tuple[str, int], list[ModbusEndpoint]] = {}
    for endpoint in _endpoints(settings):
        links.setdefault(endpoint.on().key, []).append(endpoint)
    gate = asyncio.Semaphore(_AT_ONCE)
    probes += [_modbus_host(group, timeout_s, report, gate) for group in links.values()]
    await asyncio.gather(*probes)


def _endpoints(settings: Settings) -> list[ModbusEndpoint]:
    """Units to ask; none where a device profile cannot be used: the check itself says which."""
    try:
        return modbus_endpoints(settings)
    except ConfigError:
        return []


async def _within(timeout_s: float, name: str, report: Report, question: Awaitable[Probe]) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            report(await question)
    except TimeoutError:
        report(Probe(name, False, f"no answer within {timeout_s:g} s", "check address and network"))


def redis_servers(settings: BaseModel) -> Iterator[tuple[str, Path | None]]:
    """Every Redis that some section uses, by URL, and the section's password file."""
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        values = [getattr(section, key) for key in getattr(type(section), "model_fields", ())]
        if "redis" not in values:
            continue  # nothing here is kept in Redis: its URL is a default that nobody uses
        for value in values:
            if isinstance(value, str) and value.startswith(_REDIS):
                yield value, getattr(section, "password_file", None)


async def _redis(url: str, password_file: Path | None) -> Probe:
    name = f"redis {_without_password(url)}"
    try:
        password = None
        if password_file is not None:
            password = (await asyncio.to_thread(password_file.read_text, "utf-8")).strip()
        async with Redis.from_url(url, password=password) as client:
            await client.ping()
    except (RedisError, OSError, ValueError) as error:
        return Probe(name, False, str(error), "check address, password file and the server")
    return Probe(name, True, "answers")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


async def _broker(settings: Settings, name: str, timeout_s: float) -> Probe:
    """Log in under another client id (the running gateway keeps its session) and subscribe."""
    broker = await asyncio.to_thread(mqtt_broker, settings)
    five = broker.version == 5  # noqa: PLR2004 - the protocol's own number
    client = aiomqtt.Client(
        broker.host, broker.port, username=broker.username or None,
        password=broker.password or None, tls_context=broker.tls, timeout=timeout_s,
        identifier=f"{broker.client_id}-check-{secrets.token_hex(3)}",
        protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311,
        clean_session=None if five else True,
    )  # fmt: skip
    try:
        async with client:
            granted = await client.subscribe("flexway/v1/+/+/+/status", qos=1)
    except (aiomqtt.MqttError, OSError) as error:
        remedy = "check address, ca_certificate, and username with password or client_certificate"
        return Probe(name, False, str(error) or type(error).__name__, remedy)
    for code in granted:
        if (code if isinstance(code, int) else code.value) >= _REFUSED:
            return Probe(
                name, False, f"logged in, but may not subscribe: {code}",
                "give the broker the access rules that `flexway broker acl` writes",
            )  # fmt: skip
    return Probe(name, True, "logged in, may subscribe")


async def _modbus_host(
    endpoints: list[ModbusEndpoint], timeout_s: float, report: Report, gate: asyncio.Semaphore
) -> None:
    """Units on one line share a connection: asked one after the other."""
    loop = asyncio.get_running_loop()
    async with gate:
        link = LineLink(endpoints[0].on(), timeout_s=timeout_s, monotonic=loop.time)
        try:
            for endpoint in endpoints:
                report(await _modbus_unit(link, endpoint))
        finally:
            link.close()


async def _modbus_unit(link: LineLink, endpoint: ModbusEndpoint) -> Probe:
    where = f"{link.line.name} unit {endpoint.unit}"
    name = f"modbus {endpoint.device_id} ({where})"
    link.limit(endpoint.unit, endpoint.reads.max_registers)
    if endpoint.device is not None:
        return await _mapped_unit(link, endpoint, endpoint.device, name)
    try:
        unit = SunSpecUnit(link, endpoint.unit)
        await unit.discover()
        found = await unit.identity()
    except (LinkError, SunSpecError) as error:
        return Probe(name, False, str(error), "check power, cable, address and unit number")
    known = f"{found.manufacturer} {found.model}, serial {found.serial!r}"
    if endpoint.serial and found.serial != endpoint.serial:
        remedy = f"it is another device; if it is the right one, serial = {found.serial!r}"
        return Probe(name, False, f"{known} instead of {endpoint.serial!r}", remedy)
    return Probe(name, True, known if endpoint.serial else f"{known}; pin it with `serial`")


async def _mapped_unit(
    link: LineLink, endpoint: ModbusEndpoint, device: RegisterMap, name: str
) -> Probe:
    """A device with a profile: whether it is one of its kind, and what it measures."""
    unit = RegisterUnit(
        link, endpoint.unit, device, limits=endpoint.reads,
        monotonic=asyncio.get_running_loop().time, sign=endpoint.meter_sign,
    )  # fmt: skip
    try:
        await unit.verify(endpoint.serial)
        told = await unit.measure(slow=False, capacity_kwh=None)
    except (LinkError, PointError) as error:
        remedy = "check power, cable, address, unit number, serial and device_profile"
        return Probe(name, False, str(error), remedy)
    power = "no power" if told.power_kw is None else f"{told.power_kw:.3f} kW"
    return Probe(name, True, f"{device.title}, {power} now")


async def _database(settings: Settings, timeout_s: float) -> Probe:
    path = database_file(settings)
    if path is None:
        return await asyncio.to_thread(_server, settings.store.database, timeout_s)
    if not path.exists():
        return Probe("database", True, f"{path} is made at the first start")
    return await asyncio.to_thread(_sqlite, path)


def _sqlite(path: Path) -> Probe:
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        return Probe("database", False, f"{path}: {error}", "check the path; restore a backup")
    return Probe("database", True, f"{path}, schema {row[0] if row else 'empty'}")


def _server(url: str, timeout_s: float) -> Probe:
    try:
        engine = create_engine(url, connect_args={"connect_timeout": max(1, round(timeout_s))})
        try:
            with engine.connect() as connection:
                if not inspect(connection).has_table("alembic_version"):
                    return Probe("database", True, "reached; tables are made at the first start")
                row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return Probe("database", False, cause, "check host, user, passfile and the server")
    return Probe("database", True, f"reached, schema {row[0] if row else 'empty'}")


async def _ports(settings: Settings, timeout_s: float, report: Report) -> None:
    """Ports are free, or it is this service that has them."""
    api, openadr = settings.api, settings.openadr
    running = await alive(settings, timeout_s)
    wanted = [("api", api.host, api.port)]
    if openadr.vens:
        wanted.append(("openadr", openadr.host, openadr.port))
    for section, host, port in wanted:
        report(_port(section, host, port, running=running))


def _port(section: str, host: str, port: int, *, running: bool) -> Probe:
    name = f"{section} {host}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if running:
            return Probe(name, True, "taken: the service is running")
        remedy = f"`ss -ltnp 'sport = :{port}'` names who listens; or give another port"
        return Probe(name, False, f"cannot listen: {error.strerror}", remedy)
    return Probe(name, True, "free")


async def alive(settings: Settings, timeout_s: float) -> bool:
    """Whether Flexway already answers at the API's address; only its health is asked."""
    api = settings.api
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(api.host, api.host)  # noqa: S104
    scheme = "http" if api.tls_certificate is None else "https"
    bracketed = f"[{host}]" if ":" in host else host
    url = f"{scheme}://{bracketed}:{api.port}/healthz"
    # It asks this machine about itself: the certificate's name is another one.
    async with httpx.AsyncClient(verify=False, timeout=timeout_s) as client:  # noqa: S501 - see above
        try:
            answer = await client.get(url)
            return bool(answer.json() == {"status": "alive"})
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            return False
