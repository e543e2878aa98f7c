"""A session that waits to try again, and another that finds the broker back before it."""

from __future__ import annotations

import asyncio

from adapters.mqtt.link import MqttBroker, MqttLink


class Patient(MqttLink):
    """Waits an hour before the next try, where others draw lots."""

    def _backoff(self) -> float:
        return 3600.0


def nothing(_messages: object, _acknowledge: object) -> None:
    """No message comes."""


async def test_a_session_is_tried_at_once_when_the_broker_is_known_to_be_back() -> None:
    tries: asyncio.Queue[None] = asyncio.Queue()

    async def hangs_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.put_nowait(None)
        writer.close()

    server = await asyncio.start_server(hangs_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    broker = MqttBroker(host="127.0.0.1", port=port, client_id="gateway", version=4)
    link = Patient(broker, ["flexway/v1/a"], nothing)
    async with server, asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(link.run(lambda: None))
        await tries.get()
        await asyncio.sleep(0.1)
        assert tries.empty()  # it sits its back-off out
        while tries.empty():
            link.hurry()
            await asyncio.sleep(0.02)
        task.cancel()
