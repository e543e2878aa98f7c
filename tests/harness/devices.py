"""Three devices in a process of their own: `python -m tests.harness.devices`.

A battery behind Modbus, a charger behind MQTT and a site behind OpenADR 2.0b that do at once
what they are told, and write down every command and effect with the wall time. They outlive
the gateway.

`--unwilling`: the charger acknowledges and goes on as before, the site opts out of everything,
and there are two more batteries that let the gateway down once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firmware_sim.servers.modbus import BatteryUnit, ModbusServer
from firmware_sim.servers.mqtt import MqttDevice
from firmware_sim.servers.openadr import SiteEvent, SiteVen
from tests.harness import unwilling

STEP_S = 0.2
SITE_KW = -10.0
"""What the site draws when nobody tells it anything."""


class Site:
    """A VEN that opts in to everything or to nothing, and what it does about its events."""

    def __init__(self, vtn_port: int, report_s: float, log: Any, *, opts_in: bool) -> None:
        self._log = log
        self._opts_in = opts_in
        self._report_s = report_s
        self._due = 0.0
        self._told: dict[str, tuple[int, str]] = {}
        self._in_force: float | None = None
        self.ven = SiteVen(
            vtn_url=f"http://127.0.0.1:{vtn_port}/OpenADR2/Simple/2.0b", ven_name="site-1",
            resource_id="site-1", decide=self._decide, poll_s=0.4, report_s=report_s / 2,
        )  # fmt: skip

    def step(self) -> None:
        now = datetime.now(UTC)
        self._note_events(now)
        power = self.ven.commanded_kw(now)
        if power != self._in_force:
            self._in_force = power
            effect = {"effect": "ended"} if power is None else {"effect": "set"}
            self._log({"device": "site-1", **effect, "power_w": power and power * 1000.0})
        if time.time() >= self._due:
            self._due = time.time() + self._report_s
            self.ven.measured(now, SITE_KW if power is None else power)

    def _decide(self, event: SiteEvent) -> bool:
        entry = {"received": "event", "event": event.id, "modification": event.modification}
        self._log({"device": "site-1", **entry})
        return self._opts_in

    def _note_events(self, now: datetime) -> None:
        """Write down an event that was cancelled, by its status or by being left out."""
        standing = {event.id: event for event in self.ven.events}
        for identifier in [known for known in self._told if known not in standing]:
            del self._told[identifier]
            self._log({"device": "site-1", "effect": "left_out", "event": identifier})
        for event in standing.values():
            told = (event.modification, "cancelled" if event.status == "cancelled" else "stands")
            if event.end > now and self._told.get(event.id) != told:
                self._told[event.id] = told
                self._log({"device": "site-1", "effect": told[1], "event": event.id})
            elif event.end <= now:
                self._told.pop(event.id, None)  # over: it may be left out from now on


async def serve(options: argparse.Namespace) -> None:
    with options.log.open("a", encoding="utf-8", buffering=1) as file:

        def log(entry: Mapping[str, Any]) -> None:
            file.write(json.dumps({"at": time.time(), **entry}) + "\n")

        charger = MqttDevice("ev-1", "org_seller", boot=int(time.time()), log=log)
        site = Site(options.vtn_port, options.report_s, log, opts_in=not options.unwilling)
        batteries = [BatteryUnit("bat-1", serial="SN1", capacity_kwh=6.4, log=log)]
        if options.unwilling:
            batteries += unwilling.batteries(log)
        async with AsyncExitStack() as servers, asyncio.TaskGroup() as tasks:
            ports = {}
            for battery in batteries:
                wanted = 0 if ports else options.modbus_port
                server = ModbusServer({1: battery}, port=wanted)
                ports[battery.device_id] = (await servers.enter_async_context(server)).port
            tasks.create_task(charger.run("127.0.0.1", options.broker_port))
            tasks.create_task(site.ven.run())
            tasks.create_task(step(batteries, charger, site, idle=options.unwilling))
            partial = options.ready_file.with_suffix(".partial")
            partial.write_text(json.dumps({"modbus_ports": ports}))
            partial.replace(options.ready_file)
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            await stop.wait()
            raise SystemExit(0)


async def step(
    batteries: Sequence[BatteryUnit], charger: MqttDevice, site: Site, *, idle: bool
) -> None:
    """`idle`: the charger does nothing of what it acknowledges."""
    sequence, last = 0, time.time()
    while True:
        await asyncio.sleep(STEP_S)
        now = time.time()
        for battery in batteries:
            battery.publish(power_kw=battery.commanded_kw() or 0.0, soc_kwh=5.0)
        limit = charger.commanded_kw()
        power_w = -6600.0 if limit is None or idle else limit * 1000.0
        start_us = int(last * 1e6)
        charger.report([sequence, start_us, now - last, power_w, power_w, None, True])
        site.step()
        sequence, last = sequence + 1, now


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker-port", type=int, required=True)
    parser.add_argument("--modbus-port", type=int, default=0)
    parser.add_argument("--vtn-port", type=int, default=9, help="9: nobody is there")
    parser.add_argument("--report-s", type=float, default=30.0, help="wall seconds")
    parser.add_argument("--unwilling", action="store_true")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
