"""Publishes a stream of telemetry as fast as the broker takes it."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

import gmqtt

from adapters.mqtt import wire

HOST = "127.0.0.1"
_AHEAD = 2_000


def device_ids(devices: int) -> list[str]:
    return [f"ev-{number:05d}" for number in range(devices)]


async def publish(port: int, messages: int, devices: int, boot: int) -> None:
    """One reading per message, devices in turn; prints the wall time of the first."""
    topics = [wire.topic("org_seller", device, "telemetry") for device in device_ids(devices)]
    now_us = int(time.time() * 1e6)
    stream = []
    for number in range(messages):
        sequence, device = divmod(number, devices)
        reading = wire.WireReading(sequence, now_us + sequence * 60_000_000, 60.0, -6600.0, -6600.0)
        stream.append((topics[device], wire.encode(wire.Telemetry(boot=boot, readings=[reading]))))
    client = gmqtt.Client(f"bench-{boot}")
    await client.connect(HOST, port)
    sys.stdout.write(f"{time.time()}\n")
    sys.stdout.flush()
    for start in range(0, messages, _AHEAD):
        for topic, payload in stream[start : start + _AHEAD]:
            client.publish(topic, payload, qos=1)
        await client._persistent_storage.wait_empty()
    await client.disconnect()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--boot", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(publish(options.port, options.messages, options.devices, options.boot))


if __name__ == "__main__":
    main()
