"""Commands that run a fleet: thousands of light devices of one protocol in one process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import ssl
import time
from pathlib import Path
from typing import Any, Final

import click
import uvloop

from config.writing import to_toml
from firmware_sim.fleet import gateway_settings
from firmware_sim.fleet.limits import allow_open_files
from firmware_sim.fleet.modbus_fleet import ModbusFleet
from firmware_sim.fleet.modbus_host import MOST_UNITS, ModbusHost
from firmware_sim.fleet.mqtt_fleet import MqttFleet
from firmware_sim.fleet.mqtt_host import MqttHost, MqttOptions
from firmware_sim.fleet.population import Population, populate
from firmware_sim.fleet.run import Run, stopwatch
from firmware_sim.fleet.scenario import NOTHING, Scenario, json_schema
from firmware_sim.fleet.scenario_file import read_scenario
from firmware_sim.fleet.stats import Stats
from firmware_sim.fleet.timeline import Timeline, lines
from firmware_sim.fleet.virtual import Playback
from firmware_sim.options import EXISTING, FILE, FOLDER
from marketplace_core.errors import ConfigError

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_LAST_PORT: Final = 65_535
_COUNT: Final = click.IntRange(1, 100_000)
_EPOCH_US: Final = 1_500_000_000_000_000
"""Unix microseconds at which a fleet in virtual time starts."""
seed_option = click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
scenario_option = click.option(
    "--scenario", "scenario_file", type=EXISTING, help="What goes wrong and when; default: nothing."
)
ready_option = click.option("--ready", type=FILE, help="Written once everything is up.")
stats_option = click.option("--stats", type=FILE, help="One JSON line each second.")
dry_option = click.option("--dry-run", is_flag=True, help="Print the timeline and end.")
for_option = click.option(
    "--for", "lasts_s", type=click.FloatRange(0), help="Seconds; default: until SIGTERM."
)
interval_option = click.option(
    "--interval", "interval_s", default=10.0, show_default=True, type=click.FloatRange(1.0),
    help="Seconds between two readings of a device.",
)  # fmt: skip
old_option = click.option(
    "--old-share", default=0.1, show_default=True, type=click.FloatRange(0.0, 1.0),
    help="Part of the devices that speak MQTT 3.1.1 only.",
)  # fmt: skip
organisation_option = click.option("--organisation", default="org_seller", show_default=True)


@click.group(name="fleet")
def fleet_group() -> None:
    """Thousands of light devices in one process, deterministic from a seed."""


@fleet_group.command(
    name="mqtt",
    epilog="Example:  python -m firmware_sim fleet mqtt --devices 10000 --seed 7 "
    "--scenario firmware_sim/scenarios/storm.yaml --broker-port 1883",
)
@click.option("--devices", default=1_000, show_default=True, type=_COUNT)
@seed_option
@scenario_option
@click.option("--broker-host", default="127.0.0.1", show_default=True)
@click.option("--broker-port", default=1883, show_default=True, type=click.IntRange(1, 65535))
@organisation_option
@interval_option
@old_option
@click.option("--keepalive", "keepalive_s", default=60, show_default=True,
              type=click.IntRange(5, 65_535))  # fmt: skip
@click.option("--session", "session_s", default=3_600, show_default=True,
              type=click.IntRange(0), help="Seconds that the broker keeps a session.")  # fmt: skip
@click.option("--spread", "spread_s", default=10.0, show_default=True, type=click.FloatRange(0),
              help="Seconds within which the devices switch on.")  # fmt: skip
@click.option("--base", "base_s", default=2.0, show_default=True, type=click.FloatRange(0.01),
              help="Full jitter: longest first wait, in seconds.")  # fmt: skip
@click.option("--cap", "cap_s", default=30.0, show_default=True, type=click.FloatRange(0.01),
              help="Full jitter: longest wait, in seconds.")  # fmt: skip
@click.option("--ca", "ca_file", type=EXISTING, help="TLS: the broker's certificate authority.")
@click.option("--handout", type=FOLDER, help="Folder of DEVICE.password; logins are device ids.")
@ready_option
@stats_option
@for_option
@dry_option
def mqtt_command(
    *, devices: int, seed: int, scenario_file: Path | None, broker_host: str, broker_port: int,
    organisation: str, interval_s: float, old_share: float, keepalive_s: int, session_s: int,
    spread_s: float, base_s: float, cap_s: float, ca_file: Path | None, handout: Path | None,
    ready: Path | None, stats: Path | None, lasts_s: float | None, dry_run: bool,
) -> None:  # fmt: skip
    """Run MQTT devices, each with a connection of its own to a broker."""
    population, scenario = _fleet("mqtt", devices, seed, scenario_file, old_share)
    if _said(population, scenario, seed, dry_run=dry_run):
        return
    if handout is not None:
        if ca_file is None and broker_host not in _LOOPBACK:
            raise ConfigError(f"passwords would go to {broker_host} in clear text: give --ca FILE")
        _check_passwords(population, handout)
    allow_open_files(devices)
    options = MqttOptions(
        host=broker_host, port=broker_port, organisation=organisation, keepalive_s=keepalive_s,
        session_s=session_s, spread_s=spread_s, base_s=base_s, cap_s=cap_s,
        tls=None if ca_file is None else ssl.create_default_context(cafile=ca_file),
        handout=handout,
    )  # fmt: skip
    with Stats(stats) as figures:
        run = Run(population, scenario, seed, figures, ready, lasts_s)
        uvloop.run(_mqtt(run, options, interval_s))


async def _mqtt(run: Run, options: MqttOptions, interval_s: float) -> None:
    clock, epoch = stopwatch(), time.time()
    fleet = MqttFleet(
        run.population, run.scenario, seed=run.seed, epoch_us=round(epoch * 1e6),
        interval_s=interval_s, boot=int(epoch), clock=clock,
    )  # fmt: skip
    host = MqttHost(fleet, options, seed=run.seed, stats=run.stats, clock=clock)
    stop = asyncio.Event()
    ready = {"epoch": epoch, "devices": len(run.population)}
    await run.until_stopped(stop, host.run(stop), host.all_up, lambda: ready)


@fleet_group.command(
    name="modbus",
    epilog="Example:  python -m firmware_sim fleet modbus --units 2000 --seed 7 "
    "--first-port 20000 --units-per-port 10 --ready ready.json",
)
@click.option("--units", default=100, show_default=True, type=_COUNT)
@seed_option
@scenario_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--first-port", default=0, show_default=True, type=click.IntRange(0, 65535),
              help="Others follow it; 0 = free ports.")  # fmt: skip
@click.option("--units-per-port", default=1, show_default=True, type=click.IntRange(1, MOST_UNITS),
              help="1 = each unit has a port; more = unit numbers from 1 behind it.")  # fmt: skip
@click.option("--masters", default=1, show_default=True, type=click.IntRange(1),
              help="Connections to one port to be ready for.")  # fmt: skip
@ready_option
@stats_option
@for_option
@dry_option
def modbus_command(
    *, units: int, seed: int, scenario_file: Path | None, host: str, first_port: int,
    units_per_port: int, masters: int, ready: Path | None, stats: Path | None,
    lasts_s: float | None, dry_run: bool,
) -> None:  # fmt: skip
    """Run SunSpec units behind Modbus TCP: batteries (701, 704, 713) and inverters (103, 123)."""
    population, scenario = _fleet("modbus", units, seed, scenario_file, 0.0)
    if _said(population, scenario, seed, dry_run=dry_run):
        return
    ports = -(-units // units_per_port)
    if first_port and first_port + ports - 1 > _LAST_PORT:
        raise ConfigError(f"{ports} ports from {first_port} on end behind 65535: begin lower")
    allow_open_files(ports * (1 + masters))
    with Stats(stats) as figures:
        run = Run(population, scenario, seed, figures, ready, lasts_s)
        uvloop.run(_modbus(run, host=host, first_port=first_port, units_per_port=units_per_port))


async def _modbus(run: Run, *, host: str, first_port: int, units_per_port: int) -> None:
    clock = stopwatch()
    fleet = ModbusFleet(run.population, run.scenario, seed=run.seed, clock=clock)
    served = ModbusHost(
        fleet, clock=clock, host=host, first_port=first_port, units_per_port=units_per_port,
        stats=run.stats,
    )  # fmt: skip
    stop, listening = asyncio.Event(), asyncio.Event()
    running = served.run(stop, listening=listening)
    await run.until_stopped(stop, running, listening, lambda: {"modbus": served.ready()})


@fleet_group.command(name="play")
@click.option("--devices", default=100, show_default=True, type=_COUNT)
@seed_option
@scenario_option
@interval_option
@old_option
@click.option("--for", "lasts_s", default=600.0, show_default=True, type=click.FloatRange(1.0))
@click.option("--out", type=FILE, help="JSON lines {at, device, kind, payload in hex}.")
def play_command(
    *, devices: int, seed: int, scenario_file: Path | None, interval_s: float, old_share: float,
    lasts_s: float, out: Path | None,
) -> None:  # fmt: skip
    """Play MQTT devices in virtual time: the same seed and scenario give the same bytes."""
    population, scenario = _fleet("mqtt", devices, seed, scenario_file, old_share)
    fleet = MqttFleet(
        population, scenario, seed=seed, epoch_us=_EPOCH_US, interval_s=interval_s
    )  # fmt: skip
    digest, count = hashlib.sha256(), 0
    with (out or Path(os.devnull)).open("w", encoding="utf-8") as file:
        for said in Playback(fleet, seed=seed).run(lasts_s):
            line = json.dumps({**said._asdict(), "payload": said.payload.hex()})
            digest.update(line.encode())
            count += 1
            file.write(line + "\n")
    click.echo(f"{count} messages in {lasts_s:g} s, SHA-256 {digest.hexdigest()}")


@fleet_group.command(name="settings")
@click.option("--mqtt", "mqtt_count", default=0, type=click.IntRange(0), help="MQTT devices.")
@click.option("--modbus-ready", type=EXISTING, help="Ready file of a running `fleet modbus`.")
@seed_option
@organisation_option
@interval_option
def settings_command(
    *, mqtt_count: int, modbus_ready: Path | None, seed: int, organisation: str, interval_s: float
) -> None:
    """Print what a gateway's settings have to say of the devices of a fleet, as TOML."""
    sections: dict[str, Any] = {}
    if mqtt_count:
        sections["mqtt"] = {
            "devices": gateway_settings.mqtt_devices(
                populate("mqtt", mqtt_count, seed=seed), organisation=organisation,
                telemetry_s=interval_s,
            )
        }  # fmt: skip
    if modbus_ready is not None:
        places = json.loads(modbus_ready.read_text(encoding="utf-8"))["modbus"]
        population = populate("modbus", len(places), seed=seed)
        if set(places) != set(population.ids):
            raise ConfigError(f"{modbus_ready} is of another seed than {seed}: give its --seed")
        sections["modbus"] = {
            "devices": gateway_settings.modbus_devices(
                population, places, organisation=organisation, telemetry_s=interval_s
            )
        }  # fmt: skip
    click.echo(to_toml(sections), nl=False)


@fleet_group.command(name="schema")
def schema_command() -> None:
    """Print the JSON Schema of scenario files."""
    click.echo(json.dumps(json_schema(), indent=2))


def _fleet(
    protocol: Any, count: int, seed: int, scenario_file: Path | None, old_share: float
) -> tuple[Population, Scenario]:  # fmt: skip
    scenario = NOTHING if scenario_file is None else read_scenario(scenario_file)
    return populate(protocol, count, seed=seed, old_share=old_share), scenario


def _check_passwords(population: Population, handout: Path) -> None:
    missing = [
        name for name in population.ids if not (handout / f"{name}.password").is_file()
    ]  # fmt: skip
    if missing:
        raise ConfigError(
            f"{handout} has no {missing[0]}.password, and so for {len(missing)} devices: bind them"
            " (`fleet settings`) and run `flexway broker acl`"
        )


def _said(population: Population, scenario: Scenario, seed: int, *, dry_run: bool) -> bool:
    """Print the timeline where there is one; whether that was all that was asked for."""
    for line in lines(Timeline(scenario, population, seed=seed), population):
        click.echo(line, err=not dry_run)
    return dry_run
