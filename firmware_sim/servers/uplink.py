"""The gateway's way to the broker, as a relay that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_CHUNK: Final = 64 * 1024


class Uplink:
    """Relays every connection to a target until it is cut; then it refuses them."""

    def __init__(self, target: tuple[str, int], *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Port 0 = a free one, known once it listens, and kept from then on."""
        self._target = target
        self._host = host
        self.port = port
        self._up = asyncio.Event()
        self._up.set()
        self._down = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    def switch(self, *, up: bool) -> None:
        """Cut the way: drop every connection and refuse new ones; or restore it."""
        if up:
            self._down.clear()
            self._up.set()
        elif self._up.is_set():
            self._up.clear()
            self._down.set()
            self._abort()

    async def run(self, started: Callable[[], None]) -> None:
        """Relay until cancelled; call `started` once it listens for the first time."""
        first = True
        try:
            while True:
                await self._up.wait()
                server = await asyncio.start_server(self._relay, self._host, self.port)
                self.port = server.sockets[0].getsockname()[1]
                if first:
                    started()
                    first = False
                try:
                    await self._down.wait()
                finally:
                    server.close()
        finally:
            self._abort()

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection(*self._target)
            if self._up.is_set():  # it may have been cut while the broker was being reached
                self._writers.add(far)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_pump(reader, far))
                    tasks.create_task(_pump(far_reader, writer))
        except OSError:
            return  # the broker is away: the caller finds its connection closed
        finally:
            for one in (writer, far):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until one side is gone; then the other one goes too."""
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()
