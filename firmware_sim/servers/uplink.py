"""The gateway's way to the broker, as a relay that can be cut."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

_CHUNK: Final = 64 * 1024


class Uplink:
    """Relays every connection to a target until it is cut; an async context manager."""

    def __init__(self, target: tuple[str, int], *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Port 0 = a free one, known once it listens."""
        self._target = target
        self._host = host
        self.port = port
        self._up = True
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._relay, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
            self._abort()
            await self._server.wait_closed()

    def switch(self, *, up: bool) -> None:
        """Cut the way: drop every connection and every new one; or restore it."""
        if self._up and not up:
            self._abort()
        self._up = up

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if not self._up:
                return
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._writers.add(far_writer)
            if not self._up:
                far_writer.transport.abort()  # it was cut while the broker was being reached
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_pump(reader, far_writer))
                    tasks.create_task(_pump(far_reader, writer))
            finally:
                self._writers.discard(far_writer)
                far_writer.transport.abort()
        except OSError:
            return  # the broker is away: the caller finds its connection closed
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


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
