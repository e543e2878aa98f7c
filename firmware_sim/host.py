"""Runs a scenario's devices behind real servers, in simulated time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from firmware_sim.dataset import DataSet
from firmware_sim.links.base import Link
from firmware_sim.links.modbus import ModbusLink
from firmware_sim.links.mqtt import MqttLink
from firmware_sim.links.openadr import OpenAdrLink
from firmware_sim.links.receiver import FleetReceiver
from firmware_sim.links.uplink import UplinkLink
from firmware_sim.links.webhook import Receiver, WebhookLink
from firmware_sim.pacing import Pace
from firmware_sim.plant import Moment, Plant
from firmware_sim.records import Recorder, Truth, WireLog
from firmware_sim.scenario import Fleet, Scenario, step_for
from firmware_sim.world import World
from marketplace_core.dispatch.profile import LeaseKind
from marketplace_core.errors import ConfigError
from marketplace_core.ports import TimeMap
from marketplace_core.simtime import check_speed
from marketplace_core.verification.reading import Reading

_REVERT_TICKS_S = 2.0
"""A whole-second revert timer that is refreshed at half its time needs two of them."""
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """Where the devices find their counterparts, and where things are written."""

    data: Path
    ready: Path
    log: Path
    truth: Path
    time_map: TimeMap
    broker_host: str = "127.0.0.1"
    broker_port: int | None = None
    uplink_port: int | None = None
    """Where the gateway's way to the broker is relayed; 0 = a free port, None = nowhere."""
    vtn_url: str | None = None
    tls: Path | None = None
    """Folder of the certificates; None = a lab without TLS."""
    api_url: str | None = None
    api_token_file: Path | None = None
    webhook_port: int | None = None
    """Where the fleet is dispatched; None = nobody commands it."""
    webhook_secret_file: Path | None = None
    until: datetime | None = None
    """Market time of the end; None = until SIGTERM or SIGINT."""


def run_host(scenario: Scenario, world: World, options: HostOptions) -> None:
    """Run until the end, SIGTERM or SIGINT. Raises ConfigError before anything listens."""
    check_options(scenario, options)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Host(scenario, world, options).run())


def check_options(scenario: Scenario, options: HostOptions) -> None:
    """Refuse a speed that a timer cannot follow, and missing counterparts."""
    timers = [p.lease_s for p in scenario.profiles if p.lease is LeaseKind.REVERT_TIMER]
    if timers:
        check_speed(
            options.time_map.speed, _REVERT_TICKS_S, span_market_s=min(timers),
            timer="the revert timer of an inverter",
        )  # fmt: skip
    if scenario.chargers and options.broker_port is None:
        raise ConfigError("the scenario has chargers: name their broker with --broker-port")
    if options.uplink_port is not None and options.broker_port is None:
        raise ConfigError("an uplink leads to a broker: name it with --broker-port")
    if scenario.sites and options.vtn_url is None:
        raise ConfigError("the scenario has car parks: name their VTN with --vtn-url")
    if scenario.fleets and (options.api_url is None or options.api_token_file is None):
        raise ConfigError(
            "the scenario has a fleet whose backend posts its readings: name the API with"
            " --api-url and the file with its token with --api-token-file"
        )


class _StopError(Exception):
    """Ends the task group from within."""


class Host:
    """The links, the plant and the records of one run."""

    def __init__(self, scenario: Scenario, world: World, options: HostOptions) -> None:
        self._scenario = scenario
        self._world = world
        self._options = options
        self._links: Sequence[Link] = ()

    async def run(self) -> None:
        """Serve and step until the end; nobody sees a device with empty registers."""
        truth_file = Truth(self._options.truth, self._world.faults)
        with truth_file as truth, WireLog(self._options.log, self._now) as wire:
            self._links = make_links(self._scenario, self._world, self._options, wire.note)
            pace = self._pace(truth, wire.note)
            pace.catch_up(self._until)
            try:
                async with asyncio.TaskGroup() as tasks:
                    await self._start_links(tasks)
                    tasks.create_task(self._until_signal())
                    tasks.create_task(self._step(pace))
            except* _StopError:
                pass

    @property
    def _until(self) -> datetime:
        return self._options.until or _NEVER

    async def _start_links(self, tasks: asyncio.TaskGroup) -> None:
        """Run every link; write the ready file once all of them listen."""
        listening = [asyncio.Event() for _ in self._links]
        for link, event in zip(self._links, listening, strict=True):
            tasks.create_task(link.run(event.set))
        for event in listening:
            await event.wait()
        write_ready(self._options.ready, self._links)

    async def _until_signal(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await stop.wait()
        raise _StopError

    async def _step(self, pace: Pace) -> None:
        await pace.run(self._until)
        raise _StopError

    def _pace(self, truth: Truth, record: Recorder) -> Pace:
        plant = Plant(self._scenario, self._world, DataSet(self._options.data))
        self._show(plant.still())
        return Pace(
            plant,
            time_map=self._options.time_map,
            step=step_for(self._options.time_map.speed),
            commands=self._commands,
            before_step=self._disturb,
            on_step=self._show,
            on_minute=lambda readings: self._report(readings, truth),
            record=record,
        )

    def _disturb(self, at: datetime) -> None:
        for link in self._links:
            link.disturb(at)

    def _commands(self) -> Mapping[str, float | None]:
        return {name: kw for link in self._links for name, kw in link.commands().items()}

    def _show(self, moments: list[Moment]) -> None:
        by_device = {moment.device: moment for moment in moments}
        for link in self._links:
            link.show(by_device)

    def _report(self, readings: list[Reading], truth: Truth) -> None:
        truth.minute(readings)
        by_device = {reading.series: reading for reading in readings}
        for link in self._links:
            link.report(by_device)

    def _now(self) -> datetime:
        return self._options.time_map.to_market(datetime.now(UTC))


def make_links(
    scenario: Scenario, world: World, options: HostOptions, record: Recorder
) -> list[Link]:
    """The servers that the scenario's devices need."""
    links: list[Link] = []
    faults, time_map = world.faults, options.time_map
    if scenario.homes:
        links.append(ModbusLink(scenario.homes, faults, record=record))
    if options.broker_port is not None:
        broker = (options.broker_host, options.broker_port)
        links.append(
            MqttLink(scenario.chargers, faults, broker=broker, time_map=time_map, record=record)
        )
        if options.uplink_port is not None:
            links.append(UplinkLink(scenario.incidents, broker=broker, port=options.uplink_port))
    if scenario.sites and options.vtn_url is not None:
        links.append(
            OpenAdrLink(
                scenario.sites, faults, vtn_url=options.vtn_url, time_map=time_map,
                tls=options.tls, record=record,
            )
        )  # fmt: skip
    if options.api_url is not None and options.api_token_file is not None:
        links += [
            WebhookLink(
                fleet, api_url=options.api_url, token_file=options.api_token_file,
                tls=options.tls, receiver=_receiver(fleet, options, record), record=record,
            )
            for fleet in scenario.fleets
        ]  # fmt: skip
    return links


def _receiver(fleet: Fleet, options: HostOptions, record: Recorder) -> Receiver | None:
    if options.webhook_port is None or options.webhook_secret_file is None:
        return None
    return FleetReceiver(
        fleet.id, port=options.webhook_port, secret_file=options.webhook_secret_file,
        record=record,
    )  # fmt: skip


def write_ready(path: Path, links: Sequence[Link]) -> None:
    """Write `{pid, modbus: {device: {host, port, unit, serial, ...}}, ...}`, never half of it."""
    ready: dict[str, Any] = {"pid": os.getpid(), "modbus": {}}
    for link in links:
        for section, places in link.addresses().items():
            ready[section] = {**ready.get(section, {}), **places}
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(ready), encoding="utf-8")
    part.replace(path)
