"""Simulated Modbus units in a thread of their own: commands bring their own event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from firmware_sim.servers.modbus import ModbusServer, Unit


@contextmanager
def served(units: Mapping[int, Unit]) -> Iterator[int]:
    """Serve units while the block runs; yields the port."""
    listening, done = threading.Event(), threading.Event()
    ports: list[int] = []

    async def serve() -> None:
        async with ModbusServer(units) as server:
            ports.append(server.port)
            listening.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert listening.wait(10)
        yield ports[0]
    finally:
        done.set()
        thread.join()
