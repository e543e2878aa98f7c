"""The connection to the broker: one persistent session, made anew with full jitter."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from adapters.mqtt import packets
from adapters.mqtt.reasons import fault_of
from adapters.mqtt.session import LinkError, MqttBroker, Noted, OnMessages, Session, unnoted

__all__ = ["LinkError", "MqttBroker", "MqttLink", "Noted", "OnMessages", "Will", "unnoted"]

Will = Callable[[], packets.Will]
"""What tells others that we are gone; made anew for each session."""

_CONNECT_TIMEOUT_S: Final = 10.0
_GUESS_TIMEOUT_S: Final = 3.0
"""The same while the broker's MQTT version is a guess."""
_CLOSE_TIMEOUT_S: Final = 2.0
_BACKOFF_BASE_S: Final = 0.25
_BACKOFF_CAP_S: Final = 30.0
_SILENCE: Final = 1.5
"""Keep-alive intervals without a word from the broker after which it is gone (section 3.1.2.10)."""
_log = structlog.get_logger(__name__)


class MqttLink:
    """One persistent session; reconnects with full jitter.

    Messages out wait for the broker's window (Receive Maximum). What still waits when the
    session is lost is forgotten.
    """

    def __init__(
        self, broker: MqttBroker, topics: Sequence[str], on_messages: OnMessages, *,
        noted: Noted = unnoted, will: Will | None = None, clean: bool = False,
    ) -> None:  # fmt: skip
        """`on_messages` takes what came together and what to call once it is dealt with.

        `noted` hears of every reason code that the broker gives. A Will is left with the
        broker, and sent by ourselves where a session ends in order. `clean`: the broker keeps
        nothing for us between two sessions.
        """
        self._noted = noted
        self._will = will
        self._clean = clean
        self._fault = ""
        self._broker = broker
        self._topics = topics
        self._on_messages = on_messages
        self._version = broker.version or packets.V5
        self._settled = broker.version != 0
        self._failures = 0
        self._session: Session | None = None
        self._hurry = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the session is up."""
        return self._session is not None

    @property
    def fault(self) -> str:
        """Why there is no session, in words; "" while there is one."""
        return "" if self.connected else self._fault

    async def run(self, on_up: Callable[[], None]) -> None:
        """Hold the session until cancelled; `on_up` is called at every (re)connection."""
        while True:
            try:
                await self._hold(on_up)
            except (OSError, TimeoutError, LinkError) as error:
                self._fault = fault_of(error)
                _log.warning(
                    "mqtt_unavailable", reason=self._fault,
                    error=str(error) or type(error).__name__,
                    broker=f"{self._broker.host}:{self._broker.port}",
                )  # fmt: skip
                self._try_other_version(error)
            await self._pause()

    def hurry(self) -> None:
        """The broker is there, as another session to it knows: do not sit a back-off out."""
        self._hurry.set()

    def publish(
        self,
        topic: bytes,
        payload: bytes,
        *,
        expiry_s: float | None = None,
        correlation: str = "",
        answer_to: bytes = b"",
        retain: bool = False,
    ) -> bool:
        """Hand a QoS 1 message to the session; False when nothing will be sent.

        `expiry_s`, `correlation` and `answer_to` (the response topic) are MQTT 5 properties,
        left out on 3.1.1.
        """
        if self._session is None:
            return False
        properties = packets.message_properties(
            expiry_s=expiry_s, correlation=correlation.encode(), answer_to=answer_to
        )
        return self._session.publish(topic, payload, properties, retain=retain)

    def tell(self, topic: bytes, payload: bytes, *, expiry_s: float | None = None) -> bool:
        """Send a QoS 0 message now; False when nothing is sent. `expiry_s` as for `publish`."""
        if self._session is None:
            return False
        return self._session.tell(topic, payload, packets.message_properties(expiry_s=expiry_s))

    async def _hold(self, on_up: Callable[[], None]) -> None:
        session: Session | None = None
        try:
            patience = _CONNECT_TIMEOUT_S if self._settled else _GUESS_TIMEOUT_S
            async with asyncio.timeout(patience):
                session = await self._connect()
                await session.granted
            self._failures = 0
            self._fault = ""
            self._settled = True
            self._session = session
            _log.info("mqtt_connected", version=self._version)
            on_up()
            await self._until_lost(session)
            self._fault = session.lost.result()
            _log.warning("mqtt_session_lost", reason=self._fault)
        finally:
            self._session = None
            if session is not None:
                await _close(session)

    async def _connect(self) -> Session:
        broker = self._broker
        context: ssl.SSLContext | None = broker.tls

        def opened() -> Session:
            return Session(
                broker, self._version, self._topics, self._on_messages,
                will=None if self._will is None else self._will(), clean=self._clean,
                noted=self._noted,
            )  # fmt: skip

        loop = asyncio.get_running_loop()
        _, session = await loop.create_connection(opened, broker.host, broker.port, ssl=context)
        return session

    async def _until_lost(self, session: Session) -> None:
        """Keep the connection alive until it is lost."""
        loop = asyncio.get_running_loop()
        while not session.lost.done():
            await asyncio.wait([session.lost], timeout=session.keepalive_s / 2 or None)
            if loop.time() - session.heard_at > _SILENCE * session.keepalive_s > 0:
                session.abort("the broker is silent")
                await session.lost
            elif not session.lost.done():
                session.ping()

    def _try_other_version(self, error: Exception) -> None:
        """A broker that speaks 3.1.1 only refuses, hangs up or waits when greeted in MQTT 5."""
        absent = isinstance(error, OSError) and not isinstance(error, TimeoutError)
        if not self._settled and not absent:
            five = self._version == packets.V5
            self._version = packets.V311 if five else packets.V5

    async def _pause(self) -> None:
        """Sit the back-off out, unless the broker is known to be back."""
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._backoff()):
                await self._hurry.wait()

    def _backoff(self) -> float:
        """Full jitter: anywhere between nothing and an exponentially growing cap."""
        self._failures += 1
        highest = min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2 ** min(self._failures, 16))
        return random.uniform(0.0, highest)  # noqa: S311 - spreads a fleet, guards nothing


async def _close(session: Session) -> None:
    """End the connection, with a goodbye if it still stands."""
    session.close()
    await asyncio.wait([session.lost], timeout=_CLOSE_TIMEOUT_S)
    session.abort("closed")
    if session.granted.done() and not session.granted.cancelled():
        session.granted.exception()  # heard, or of no interest any more
