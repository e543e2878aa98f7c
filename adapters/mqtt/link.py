"""The connection to the broker, on gmqtt: it acknowledges after our handler has finished."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import gmqtt
import msgspec
import structlog
from gmqtt.mqtt.handler import MQTTError

_CONNECT_TIMEOUT_S: Final = 10.0
_BACKOFF_BASE_S: Final = 0.25
_BACKOFF_CAP_S: Final = 30.0
_MQTT_5: Final = 5
_gmqtt_log = logging.getLogger("flexway.gmqtt")
_gmqtt_log.setLevel(logging.CRITICAL)
_log = structlog.get_logger(__name__)

OnMessage = Callable[[str, bytes], Awaitable[None]]


class MqttBroker(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker is and how the session behaves; nothing is left to defaults."""

    host: str
    port: int
    client_id: str
    username: str = ""
    password: str = ""
    tls: Any = None
    """An `ssl.SSLContext`; None = plain text, for a lab on loopback."""
    version: int = 5
    """MQTT protocol level: 5, or 4 for a broker that speaks 3.1.1 only."""
    keepalive_s: int = 30
    session_expiry_s: int = 86_400
    """The broker keeps our session and its queue for so long."""
    receive_maximum: int = 1_000
    """Unacknowledged messages the broker may have in flight to us."""


class MqttLink:
    """One persistent session; reconnects with full jitter."""

    def __init__(self, broker: MqttBroker, topics: Sequence[str], on_message: OnMessage) -> None:
        """`on_message` returns when a message may be acknowledged to the broker."""
        self._broker = broker
        self._topics = topics
        self._on_message = on_message
        self._failures = 0
        self._client_in_use: gmqtt.Client | None = None
        self._up = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the session is up."""
        return self._up.is_set()

    async def run(self, on_up: Callable[[], None]) -> None:
        """Hold the session until cancelled; `on_up` is called at every (re)connection."""
        while True:
            lost = asyncio.Event()
            client = self._client(lost)
            try:
                await self._connect(client)
                self._failures = 0
                self._client_in_use = client
                self._up.set()
                on_up()
                await lost.wait()
            except (OSError, TimeoutError, MQTTError) as error:
                _log.warning("mqtt_unavailable", error=str(error) or type(error).__name__)
            finally:
                self._up.clear()
                await _close(client)
            await asyncio.sleep(self._backoff())

    def publish(
        self, topic: str, payload: bytes, *, expiry_s: int | None = None, correlation: str = ""
    ) -> bool:
        """Hand a QoS 1 message to the session; False when it is down and nothing was sent."""
        if self._client_in_use is None or not self._up.is_set():
            return False
        properties: dict[str, Any] = {}
        if expiry_s is not None and self._broker.version == _MQTT_5:
            properties["message_expiry_interval"] = max(1, expiry_s)
        if correlation and self._broker.version == _MQTT_5:
            properties["correlation_data"] = correlation.encode()
        self._client_in_use.publish(topic, payload, qos=1, **properties)
        return True

    def _client(self, lost: asyncio.Event) -> gmqtt.Client:
        properties: dict[str, int] = {}
        if self._broker.version == _MQTT_5:
            properties["session_expiry_interval"] = self._broker.session_expiry_s
            properties["receive_maximum"] = self._broker.receive_maximum
        client = gmqtt.Client(
            self._broker.client_id,
            clean_session=False,
            optimistic_acknowledgement=False,
            logger=_gmqtt_log,
            **properties,
        )
        # Reconnecting is ours: the library waits a fixed time, a fleet needs jitter. It
        # reconnects while failures <= retries, so only a negative number (not -1, its
        # "unlimited") keeps it from doing so.
        client.set_config({"reconnect_retries": -2})
        if self._broker.username:
            client.set_auth_credentials(self._broker.username, self._broker.password)

        async def on_message(
            _client: object, topic: str, payload: bytes, _qos: int, _properties: object
        ) -> int:
            await self._on_message(topic, bytes(payload))
            return 0

        def on_disconnect(_client: object, _packet: object, _error: object = None) -> None:
            lost.set()

        client.on_message = on_message
        client.on_disconnect = on_disconnect
        return client

    async def _connect(self, client: gmqtt.Client) -> None:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await client.connect(
                self._broker.host,
                self._broker.port,
                ssl=self._tls() or False,
                keepalive=self._broker.keepalive_s,
                version=self._broker.version,
            )
        client.subscribe([gmqtt.Subscription(topic, qos=1) for topic in self._topics])

    def _tls(self) -> ssl.SSLContext | None:
        context: ssl.SSLContext | None = self._broker.tls
        return context

    def _backoff(self) -> float:
        """Full jitter: anywhere between nothing and an exponentially growing cap."""
        self._failures += 1
        highest = min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2**self._failures)
        return random.uniform(0.0, highest)  # noqa: S311 - spreads a fleet, guards nothing


async def _close(client: gmqtt.Client) -> None:
    try:
        await client.disconnect()
    except (OSError, AttributeError, MQTTError) as error:
        # A client that never connected has no connection to close.
        _log.debug("mqtt_close", error=str(error))
