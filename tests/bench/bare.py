"""Publishes messages from standard input as fast as the broker takes them, and nothing else.

Input: one MessagePack array of `[topic, payload]`. Prints `perf_counter` (the system's monotonic
clock on Linux, so that another process can compare) at the moment it begins.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

import gmqtt
import msgpack

HOST = "127.0.0.1"


async def publish(port: int, messages: list[tuple[str, bytes]]) -> None:
    client = gmqtt.Client("bare")
    await client.connect(HOST, port)
    sys.stdout.write(f"{time.perf_counter()}\n")
    sys.stdout.flush()
    for topic, payload in messages:
        client.publish(topic, payload, qos=1)
    await client._persistent_storage.wait_empty()
    await client.disconnect()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(publish(options.port, msgpack.unpackb(sys.stdin.buffer.read())))


if __name__ == "__main__":
    main()
