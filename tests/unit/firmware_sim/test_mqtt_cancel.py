"""A simulated charger ends when it is told to, even if its client forgets the cancellation."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import aiomqtt
import pytest

from firmware_sim.servers.mqtt import MqttDevice


class Forgetful:
    """Forgets the cancellation that comes with an answer, as `asyncio.wait_for` did before 3.12."""

    def __init__(self, forgets: str, asked: asyncio.Event) -> None:
        self._forgets = forgets
        self._asked = asked

    async def __aenter__(self) -> Self:
        await self._forget("connect")
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def subscribe(self, *_: Any, **__: Any) -> None:
        return None

    async def publish(self, *_: Any, **__: Any) -> None:
        await self._forget("publish")

    async def _forget(self, what: str) -> None:
        if what != self._forgets:
            return
        self._forgets = ""
        self._asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    @property
    def messages(self) -> Any:
        raise AssertionError("nothing is heard after the cancellation")


@pytest.mark.parametrize("where", ["connect", "publish"])
async def test_a_cancellation_that_the_client_forgot_is_obeyed(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    asked = asyncio.Event()
    monkeypatch.setattr(aiomqtt, "Client", lambda *_, **__: Forgetful(where, asked))
    task = asyncio.create_task(MqttDevice("ev-1", "org_s", boot=1).run("127.0.0.1", 1))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
