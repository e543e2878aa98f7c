"""The connection to the broker, on gmqtt: it acknowledges after our handler has finished."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import gmqtt
import msgspec
import structlog
from gmqtt.mqtt.handler import MQTTError

from adapters.mqtt.window import Unacknowledged

_CONNECT_TIMEOUT_S: Final = 10.0
_GUESS_TIMEOUT_S: Final = 3.0
"""The same while the broker's MQTT version is a guess."""
_CLOSE_TIMEOUT_S: Final = 2.0
_BACKOFF_BASE_S: Final = 0.25
_BACKOFF_CAP_S: Final = 30.0
_MOST_WAITING: Final = 50_000
"""Messages that wait for the broker's window; more is refused."""
_LONGEST_EXPIRY_S: Final = 2**32 - 1
_MQTT_5: Final = 5
_MQTT_311: Final = 4
_gmqtt_log = logging.getLogger("gmqtt")
_gmqtt_log.setLevel(logging.CRITICAL)  # what it says, we say in our own log
_log = structlog.get_logger(__name__)

OnMessage = Callable[[str, bytes, bool], Awaitable[None]]
"""Topic, payload, and whether the broker may have delivered it before."""
Will = Callable[[], tuple[str, bytes]]
"""Topic and payload, retained, that tell others that we are gone; made anew for each session."""


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
    """MQTT protocol level: 5; 4 for a broker that speaks 3.1.1 only; 0 tries 5, then 3.1.1."""
    keepalive_s: int = 30
    session_expiry_s: int = 86_400
    """The broker keeps our session and its queue for so long."""
    receive_maximum: int = 1_000
    """Unacknowledged messages the broker may have in flight to us."""
    maximum_packet: int = 1_048_576
    """Bytes of one message that the broker may send us; it drops longer ones (MQTT 5)."""


class LinkError(Exception):
    """The broker does not give the session that was asked for."""


class MqttLink:
    """One persistent session; reconnects with full jitter.

    Messages out wait here for the broker's window (Receive Maximum). What still waits when
    the session is lost is forgotten.
    """

    def __init__(
        self,
        broker: MqttBroker,
        topics: Sequence[str],
        on_message: OnMessage,
        *,
        will: Will | None = None,
        clean: bool = False,
    ) -> None:
        """`on_message` returns when a message may be acknowledged to the broker.

        `will` is left with the broker, and sent by ourselves where a session ends in order.
        `clean`: the broker keeps nothing for us between two sessions.
        """
        self._broker = broker
        self._topics = topics
        self._on_message = on_message
        self._will = will
        self._clean = clean
        self._version = broker.version or _MQTT_5
        self._settled = broker.version != 0
        self._failures = 0
        self._session: gmqtt.Client | None = None
        self._waiting: deque[gmqtt.Message] = deque()
        self._handling = 0
        self._idle = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the session is up."""
        return self._session is not None

    async def run(self, on_up: Callable[[], None]) -> None:
        """Hold the session until cancelled; `on_up` is called at every (re)connection."""
        while True:
            try:
                await self._hold(on_up)
            except (OSError, TimeoutError, MQTTError, LinkError) as error:
                _log.warning(
                    "mqtt_unavailable", error=str(error) or type(error).__name__,
                    broker=f"{self._broker.host}:{self._broker.port}",
                )  # fmt: skip
                self._try_other_version(error)
            await asyncio.sleep(self._backoff())

    async def drained(self) -> None:
        """Return once no handler of an inbound message runs any more."""
        while self._handling:
            self._idle.clear()
            await self._idle.wait()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        expiry_s: float | None = None,
        correlation: str = "",
        qos: int = 1,
        retain: bool = False,
    ) -> bool:
        """Hand a message to the session; False when nothing will be sent.

        `expiry_s` and `correlation` are MQTT 5 properties, left out on 3.1.1.
        """
        if self._session is None or len(self._waiting) >= _MOST_WAITING:
            return False
        properties: dict[str, Any] = {}
        if expiry_s is not None:
            properties["message_expiry_interval"] = min(_LONGEST_EXPIRY_S, max(1, round(expiry_s)))
        if correlation:
            properties["correlation_data"] = correlation.encode()
        self._waiting.append(gmqtt.Message(topic, payload, qos=qos, retain=retain, **properties))
        self._flush()
        return True

    def _flush(self) -> None:
        """Send what waits until the broker's window is full."""
        while self._waiting and self._session is not None:
            try:
                self._session.publish(self._waiting[0])
            except OverflowError:
                return  # no packet id is free: an acknowledgement calls us again
            self._waiting.popleft()

    async def _hold(self, on_up: Callable[[], None]) -> None:
        lost, granted = asyncio.Event(), asyncio.get_running_loop().create_future()
        will = None if self._will is None else gmqtt.Message(*self._will(), qos=1, retain=True)
        client = self._client(lost, granted, will)
        try:
            patience = _CONNECT_TIMEOUT_S if self._settled else _GUESS_TIMEOUT_S
            async with asyncio.timeout(patience):
                await _unless(lost, self._connect(client, granted))
            self._failures = 0
            self._settled = True
            self._session = client
            _log.info("mqtt_connected", version=self._version)
            on_up()
            await lost.wait()
            _log.warning("mqtt_session_lost")
        finally:
            if self._session is not None and will is not None and not lost.is_set():
                client.publish(will)
            self._session = None
            self._waiting.clear()
            await _close(client)

    def _client(
        self,
        lost: asyncio.Event,
        granted: asyncio.Future[Sequence[int]],
        will: gmqtt.Message | None,
    ) -> gmqtt.Client:
        client = gmqtt.Client(
            self._broker.client_id,
            clean_session=self._clean,
            will_message=will,
            optimistic_acknowledgement=False,
            persistent_storage=Unacknowledged(self._flush),
            logger=_gmqtt_log,
            session_expiry_interval=self._broker.session_expiry_s,
            receive_maximum=self._broker.receive_maximum,
            maximum_packet_size=self._broker.maximum_packet,
        )
        # Reconnecting is ours: the library waits a fixed time, a fleet needs jitter. It
        # reconnects while failures <= retries, so only a negative number (not -1, its
        # "unlimited") keeps it from doing so.
        client.set_config({"reconnect_retries": -2})
        if self._broker.username:
            client.set_auth_credentials(self._broker.username, self._broker.password)

        async def on_message(
            _client: object, topic: str | bytes, payload: bytes, _qos: int,
            properties: Mapping[str, Any],
        ) -> int:  # fmt: skip
            self._handling += 1
            try:
                # A topic that is not UTF-8 comes as bytes.
                name = topic if isinstance(topic, str) else topic.decode(errors="replace")
                await self._on_message(name, payload, bool(properties["dup"]))
            finally:
                self._handling -= 1
                if not self._handling:
                    self._idle.set()
            return 0

        def on_disconnect(_client: object, _packet: object, _error: object = None) -> None:
            lost.set()

        def on_subscribe(
            _client: object, _mid: int, levels: Sequence[int], _properties: object
        ) -> None:
            if not granted.done():
                granted.set_result(levels)

        client.on_message = on_message
        client.on_disconnect = on_disconnect
        client.on_subscribe = on_subscribe
        return client

    async def _connect(self, client: gmqtt.Client, granted: asyncio.Future[Sequence[int]]) -> None:
        broker = self._broker
        await client.connect(
            broker.host, broker.port, ssl=_context(broker) or False,
            keepalive=broker.keepalive_s, version=self._version,
        )  # fmt: skip
        client.subscribe([gmqtt.Subscription(topic, qos=1) for topic in self._topics])
        levels = await granted
        if any(level != 1 for level in levels):
            raise LinkError(f"the broker grants {list(levels)} for {list(self._topics)}, not QoS 1")

    def _try_other_version(self, error: Exception) -> None:
        """A broker that speaks 3.1.1 only refuses, hangs up or waits when greeted in MQTT 5."""
        absent = isinstance(error, OSError) and not isinstance(error, TimeoutError)
        if not self._settled and not absent:
            self._version = _MQTT_311 if self._version == _MQTT_5 else _MQTT_5

    def _backoff(self) -> float:
        """Full jitter: anywhere between nothing and an exponentially growing cap."""
        self._failures += 1
        highest = min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2 ** min(self._failures, 16))
        return random.uniform(0.0, highest)  # noqa: S311 - spreads a fleet, guards nothing


def _context(broker: MqttBroker) -> ssl.SSLContext | None:
    context: ssl.SSLContext | None = broker.tls
    return context


async def _unless(lost: asyncio.Event, work: Awaitable[None]) -> None:
    """Await `work`; LinkError as soon as the connection is lost meanwhile."""

    async def watch() -> None:
        await lost.wait()
        raise LinkError("the broker ended the connection")

    try:
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(watch())
            await work
            watcher.cancel()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _close(client: gmqtt.Client) -> None:
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await client.disconnect()
    except (OSError, TimeoutError, AttributeError, MQTTError) as error:
        # A client that never connected has no connection to close.
        _log.debug("mqtt_close", error=str(error))
