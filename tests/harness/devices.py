"""Three devices in a process of their own: `python -m tests.harness.devices`.

A battery behind Modbus, a charger behind MQTT and a site behind OpenADR 2.0b that do at once
what they are told, and write down every command and effect with the wall time. They outlive
the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firmware_sim.servers.modbus import BatteryUnit, ModbusServer
from firmware_sim.servers.mqtt import MqttDevice
from firmware_sim.servers.openadr import SiteEvent, SiteVen

STEP_S = 0.2
SITE_KW = -10.0
"""What the site draws when nobody tells it anything."""


class Site:
    """A VEN that opts in to everything, and what it does about its events."""

    def __init__(self, vtn_port: int, report_s: float, log: Any) -> None:
        self._log = log
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
        return True

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

        battery = BatteryUnit("bat-1", serial="SN1", capacity_kwh=6.4, log=log)
        charger = MqttDevice("ev-1", "org_seller", boot=int(time.time()), log=log)
        site = Site(options.vtn_port, options.report_s, log)
        async with (
            ModbusServer({1: battery}, port=options.modbus_port) as server,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(charger.run("127.0.0.1", options.broker_port))
            tasks.create_task(site.ven.run())
            tasks.create_task(step(battery, charger, site))
            partial = options.ready_file.with_suffix(".partial")
            partial.write_text(json.dumps({"modbus_port": server.port}))
            partial.replace(options.ready_file)
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            await stop.wait()
            raise SystemExit(0)


async def step(battery: BatteryUnit, charger: MqttDevice, site: Site) -> None:
    sequence, last = 0, time.time()
    while True:
        await asyncio.sleep(STEP_S)
        now = time.time()
        battery.publish(power_kw=battery.commanded_kw() or 0.0, soc_kwh=5.0)
        limit = charger.commanded_kw()
        power_w = -6600.0 if limit is None else limit * 1000.0
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
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
