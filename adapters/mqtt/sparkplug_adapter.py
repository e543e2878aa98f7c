"""Sparkplug B devices behind the DeviceAdapter port; the gateway is their host application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

import msgspec
import structlog

from adapters.base import refuse, side_by_side
from adapters.mqtt.commits import Commits
from adapters.mqtt.link import MqttBroker, MqttLink, Noted, unnoted
from adapters.mqtt.packets import Publish, Will
from adapters.mqtt.presence import Presence
from adapters.mqtt.session import Acknowledge
from adapters.mqtt.sparkplug import Life, rebirth_request
from adapters.mqtt.sparkplug_binding import SparkplugDevice
from adapters.mqtt.sparkplug_control import in_force
from adapters.mqtt.sparkplug_drive import Driver, tolerance_of
from adapters.mqtt.sparkplug_inbound import Bound, Fleet, Node, SparkplugInbound
from adapters.mqtt.sparkplug_payload import Payload
from adapters.mqtt.sparkplug_topic import (
    State,
    Topic,
    Verb,
    check_levels,
    decode_state,
    encode_state,
    every_message_of,
    state_topic,
)
from adapters.mqtt.sparkplug_wire import encode
from adapters.mqtt.wire import WireError
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import ReadBack, Refused, Setpoint, SetpointOutcome
from marketplace_core.errors import ConfigError, DeviceError
from marketplace_core.ports import Clock, ReadingSink, TimeMap
from marketplace_core.units import Kw

_TICK_S: Final = 1.0
"""Wall seconds between two looks at rebirths that are still to be asked for."""
_log = structlog.get_logger(__name__)


class SparkplugAdapter:
    """Implements the DeviceAdapter port over one broker, as a Sparkplug host application.

    Sparkplug's data has QoS 0: a message that is lost is noticed by its sequence number, and a
    rebirth is asked for. Where a node sends with QoS 1, its message is acknowledged after the
    commit.
    """

    protocol = "sparkplug"

    def __init__(
        self,
        broker: MqttBroker,
        devices: Iterable[SparkplugDevice],
        *,
        host_id: str,
        clock: Clock,
        time_map: TimeMap,
        ack_timeout_s: float,
        rebirth_every_s: float = 10.0,
        noted: Noted = unnoted,
    ) -> None:
        """`ack_timeout_s`: wall seconds that a device has to report a command back.

        `noted` hears of every reason code that the broker gives: packet and words.
        Raises: ConfigError for a binding that cannot work.
        """
        try:
            check_levels(host_id)
        except ValueError as error:
            raise ConfigError(f"mqtt.sparkplug_host: {error}") from error
        self._clock = clock
        self._fleet = Fleet(devices, clock, time_map, rebirth_every_s)
        self._presence = Presence(clock, [b.device for b in self._fleet.bound.values()])
        self._state_topic = state_topic(host_id).encode()
        self._state_ms = 0
        self._ack_timeout_s = ack_timeout_s
        session = msgspec.structs.replace(
            broker, client_id=f"{broker.client_id}-sparkplug", session_expiry_s=0
        )
        filters = [every_message_of(*key) for key in self._fleet.nodes]
        self._link = MqttLink(
            session, [*filters, state_topic(host_id)], self._on_messages, noted=noted,
            will=self._will, clean=True,
        )  # fmt: skip
        self._driver = Driver(
            self._fleet, self._command, link_up=lambda: self._link.connected, clock=clock,
            time_map=time_map, ack_timeout_s=ack_timeout_s,
        )  # fmt: skip
        self._inbound: SparkplugInbound | None = None
        self._commits: Commits | None = None

    @property
    def gaps(self) -> dict[str, int]:
        """Messages that sequence numbers show to be lost, per device of a node that lost any."""
        return {
            bound.device.device_id: node.session.missing
            for node in self._fleet.nodes.values()
            for bound in node.devices.values()
            if node.session.missing
        }

    @property
    def given_up(self) -> int:
        """Messages that sequence numbers show to be lost since the start, of all edge nodes."""
        return sum(node.session.missing for node in self._fleet.nodes.values())

    @property
    def shed(self) -> int:
        """Readings dropped since the start because the disk was too far behind."""
        return 0 if self._commits is None else self._commits.shed

    @property
    def link_up(self) -> bool:
        """Whether the session with the broker is up now."""
        return self._link.connected

    @property
    def link_fault(self) -> str:
        """Why the session with the broker is down, in words; "" while it is up."""
        return self._link.fault

    def profiles(self) -> Sequence[DeviceProfile]:
        """Every device of this adapter."""
        return [bound.device.profile for bound in self._fleet.bound.values()]

    def connected(self, device_id: str) -> bool:
        """Whether it was born, nothing is doubtful, and it was heard of within three intervals."""
        bound = self._fleet.bound.get(device_id)
        if bound is None or not self._link.connected:
            return False
        return self._fleet.life(bound) is Life.BORN and self._presence.recent(device_id)

    async def run(self, sink: ReadingSink, *, ready: Callable[[], None]) -> None:
        """Hold the session and take what edge nodes say until cancelled."""
        commits = self._commits = Commits(sink)
        self._inbound = SparkplugInbound(
            self._fleet, sink=sink, commits=commits, presence=self._presence, clock=self._clock,
            doubt=self._ask_rebirth,
        )  # fmt: skip

        def on_up() -> None:
            self._say(online=True)
            self._driver.link_came_up()
            for node in self._fleet.nodes.values():
                node.session.unheard()
                self._ask_rebirth(node)
            ready()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(commits.run())
            tasks.create_task(self._keep_asking())
            tasks.create_task(self._link.run(on_up))

    def issue(self, setpoints: Sequence[Setpoint]) -> AsyncIterator[list[SetpointOutcome]]:
        """Drive devices side by side; yield each outcome as it is known."""
        return side_by_side(setpoints, self._apply)

    async def release(self, device_id: str, *, order_id: str, revision: int) -> SetpointOutcome:
        """Return a device to its fallback, unless a newer revision or another order holds it."""
        bound = self._fleet.bound.get(device_id)
        if bound is None:
            return Refused(
                setpoint_id="", device_id=device_id, at=self._clock.now(),
                reason="no such device is bound here",
            )  # fmt: skip
        bound.releases += 1
        bound.news.set()
        async with bound.busy:
            return await self._driver.release(bound, order_id=order_id, revision=revision)

    async def read_back(self, device_id: str) -> ReadBack:
        """What a device reports now, after a rebirth where its session is in doubt."""
        bound = self._fleet.bound.get(device_id)
        if bound is None or "setpoint" not in bound.device.metrics:
            raise DeviceError("no such controllable device", device_id=device_id, retryable=False)
        if not await self._driver.reached(bound, self._ack_timeout_s):
            raise DeviceError("it is not there", device_id=device_id, retryable=True)
        profile, near = bound.device.profile, tolerance_of(self._fleet, bound)
        active, power_kw = in_force(
            bound.reported, fallback_kw=profile.fallback_kw, tolerance_kw=near
        )
        held = bound.held
        same = held is not None and power_kw is not None and abs(held.power_kw - power_kw) <= near
        return ReadBack(
            device_id=device_id, at=self._clock.now(), active=active,
            setpoint_id=held.id if active and same and held is not None else None,
            setpoint_kw=Kw(power_kw) if active and power_kw is not None else None,
        )  # fmt: skip

    async def _apply(self, setpoint: Setpoint) -> SetpointOutcome:
        bound = self._fleet.bound.get(setpoint.device_id)
        refused = refuse(setpoint, bound.device.profile if bound else None, self._clock.now())
        if refused is not None or bound is None:
            return refused or Refused(
                setpoint_id=setpoint.id, device_id=setpoint.device_id, at=self._clock.now(),
                reason="no such device is bound here",
            )  # fmt: skip
        releases = bound.releases
        async with bound.busy:
            return await self._driver.apply(bound, setpoint, releases)

    def _on_messages(self, messages: Sequence[Publish], acknowledge: Acknowledge) -> None:
        for message in messages:
            if message.topic == self._state_topic:
                self._heard_of_ourselves(message.payload)
                acknowledge([message.mid])
            elif self._inbound is not None:
                self._inbound.take(message, acknowledge)

    def _heard_of_ourselves(self, payload: bytes) -> None:
        """Somebody, an old Will of ours most likely, says that we are gone."""
        try:
            online = decode_state(payload).online
        except WireError:
            online = False
        if not online:
            self._say(online=True)

    def _will(self) -> Will:
        self._state_ms = self._wall_ms()
        state = State(online=False, timestamp=self._state_ms)
        return Will(self._state_topic, encode_state(state))

    def _say(self, *, online: bool) -> None:
        state = State(online=online, timestamp=self._state_ms)
        self._link.publish(self._state_topic, encode_state(state), retain=True)

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            for node in self._fleet.nodes.values():
                self._ask_rebirth(node)

    def _ask_rebirth(self, node: Node) -> None:
        if self._link.connected and node.rebirths.due(node.session, self._clock.monotonic()):
            _log.info(
                "sparkplug_rebirth_asked", edge_node="/".join(node.key),
                reason=node.session.wants_rebirth,
            )  # fmt: skip
            request = rebirth_request(self._wall_ms())
            self._publish(Topic(node.key[0], Verb.NCMD, node.key[1]), request)

    def _command(self, bound: Bound, payload: Payload, expiry_s: float) -> bool:
        device = bound.device
        verb = Verb.DCMD if device.sparkplug_device else Verb.NCMD
        topic = Topic(device.group, verb, device.edge_node, device.sparkplug_device)
        return self._publish(topic, payload, expiry_s)

    def _publish(self, topic: Topic, payload: Payload, expiry_s: float | None = None) -> bool:
        """Commands have QoS 0 and are never retained (sections 6.4.23 and 6.4.24)."""
        return self._link.tell(str(topic).encode(), encode(payload), expiry_s=expiry_s)

    def _wall_ms(self) -> int:
        return self._driver.wall_ms()
