"""Two devices in a process of their own: `python -m tests.harness.devices`.

A battery behind Modbus and a charger behind MQTT that do at once what they are told, and
write down every command and effect with the wall time. They outlive the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firmware_sim.servers.modbus import BatteryUnit, ModbusServer
from firmware_sim.servers.mqtt import MqttDevice

STEP_S = 0.1


async def serve(options: argparse.Namespace) -> None:
    with options.log.open("a", encoding="utf-8", buffering=1) as file:

        def log(entry: Mapping[str, Any]) -> None:
            file.write(json.dumps({"at": time.time(), **entry}) + "\n")

        battery = BatteryUnit("bat-1", serial="SN1", capacity_kwh=6.4, log=log)
        charger = MqttDevice("ev-1", "org_seller", boot=int(time.time()), log=log)
        async with (
            ModbusServer({1: battery}, port=options.modbus_port) as server,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(charger.run("127.0.0.1", options.broker_port))
            tasks.create_task(step(battery, charger))
            partial = options.ready_file.with_suffix(".partial")
            partial.write_text(json.dumps({"modbus_port": server.port}))
            partial.replace(options.ready_file)
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            await stop.wait()
            raise SystemExit(0)


async def step(battery: BatteryUnit, charger: MqttDevice) -> None:
    sequence, last = 0, time.time()
    while True:
        await asyncio.sleep(STEP_S)
        now = time.time()
        battery.publish(power_kw=battery.commanded_kw() or 0.0, soc_kwh=5.0)
        limit = charger.commanded_kw()
        power_w = -6600.0 if limit is None else limit * 1000.0
        start_us = int(last * 1e6)
        charger.report([sequence, start_us, now - last, power_w, power_w, None, True])
        sequence, last = sequence + 1, now


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker-port", type=int, required=True)
    parser.add_argument("--modbus-port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
