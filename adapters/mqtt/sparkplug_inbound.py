"""What edge nodes say: followed by session, turned into readings, reports and presence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from adapters.mqtt.commits import Commits
from adapters.mqtt.packets import Publish
from adapters.mqtt.presence import Presence
from adapters.mqtt.session import Acknowledge
from adapters.mqtt.sparkplug import NODE, Heard, Life, NodeSession, Rebirths, evidence
from adapters.mqtt.sparkplug_binding import Reported, SparkplugDevice, check
from adapters.mqtt.sparkplug_readings import PowerReadings
from adapters.mqtt.sparkplug_topic import Topic, parse
from adapters.mqtt.sparkplug_wire import decode
from adapters.mqtt.wire import WireError
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.errors import ConfigError
from marketplace_core.ports import Clock, ReadingSink, TimeMap
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading

NodeKey = tuple[str, str]
"""Group and edge node."""
_GONE: Final = "its death certificate, or its edge node's, says that it is gone"


class Node:
    """An edge node: its session and the bound devices behind it, by their Sparkplug names."""

    def __init__(self, key: NodeKey, devices: dict[str, Bound], rebirth_every_s: float) -> None:
        self.key = key
        self.devices = devices
        self.session = NodeSession({name: bound.reported.names for name, bound in devices.items()})
        self.rebirths = Rebirths(rebirth_every_s)


class Bound:
    """A device, what it last reported, and what was last done with it."""

    def __init__(self, device: SparkplugDevice, clock: Clock, time_map: TimeMap) -> None:
        self.device = device
        self.reported = Reported(device)
        interval_s = clock.wall_seconds(device.profile.telemetry_s)
        self.readings = PowerReadings(device, time_map, interval_s)
        self.deaths = 0
        self.news = asyncio.Event()
        """Set whenever it, or its edge node, said something."""
        self.busy = asyncio.Lock()
        self.held: Setpoint | None = None
        self.newest: dict[str, int] = {}
        self.releases = 0
        """Releases that were asked for: each overtakes the setpoints before it."""


class Fleet:
    """Every bound device, by id and by edge node."""

    def __init__(
        self,
        devices: Iterable[SparkplugDevice],
        clock: Clock,
        time_map: TimeMap,
        rebirth_every_s: float,
    ) -> None:
        """Raises: ConfigError for a binding that cannot work, or the same metrics bound twice."""
        self.bound: dict[str, Bound] = {}
        self.nodes: dict[NodeKey, Node] = {}
        behind: dict[NodeKey, dict[str, Bound]] = {}
        for device in devices:
            check(device)
            bound = Bound(device, clock, time_map)
            self.bound[device.device_id] = bound
            here = behind.setdefault((device.group, device.edge_node), {})
            if device.sparkplug_device in here:
                raise ConfigError(
                    f"{device.device_id}: {device.group}/{device.edge_node}/"
                    f"{device.sparkplug_device} is bound twice: give each device one binding"
                )
            here[device.sparkplug_device] = bound
        self.nodes = {key: Node(key, here, rebirth_every_s) for key, here in behind.items()}

    def node_of(self, bound: Bound) -> Node:
        """The edge node that a device hangs on."""
        return self.nodes[bound.device.group, bound.device.edge_node]

    def life(self, bound: Bound) -> Life:
        """What may be believed of a device."""
        return self.node_of(bound).session.life(bound.device.sparkplug_device)


class SparkplugInbound:
    """Takes messages of bound edge nodes; what cannot be understood is quarantined."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        sink: ReadingSink,
        commits: Commits,
        presence: Presence,
        clock: Clock,
        doubt: Callable[[Node], None],
    ) -> None:
        """`doubt` is called with the edge node after each message: it may want a rebirth."""
        self._doubt = doubt
        self._fleet = fleet
        self._sink = sink
        self._commits = commits
        self._presence = presence
        self._clock = clock

    def take(self, message: Publish, acknowledge: Acknowledge) -> None:
        """Understand a message; `acknowledge` hears of it once its readings are committed."""
        topic, payload = message.topic.decode(errors="replace"), message.payload
        readings: list[Reading] = []
        device_id = ""
        try:
            where = parse(topic)
            node = self._node(where, payload)
            bound = node.devices.get(where.device)
            device_id = "" if bound is None else bound.device.device_id
            heard = node.session.take(
                where.verb, where.device, decode(payload), again=message.again
            )
            readings, faults = self._understood(node, where, heard)
            if faults:
                self._put_aside(topic, evidence(faults), payload, device_id)
        except WireError as error:
            self._put_aside(topic, str(error), error.evidence or payload, device_id)
        self._commits.add(readings, mid=message.mid, acknowledge=acknowledge)

    def _node(self, where: Topic, payload: bytes) -> Node:
        node = self._fleet.nodes.get((where.group, where.edge_node))
        if node is None:
            raise WireError(f"no edge node {where.group}/{where.edge_node} is bound", payload)
        return node

    def _put_aside(self, topic: str, reason: str, found: bytes, device_id: str) -> None:
        self._sink.quarantine(source=topic, reason=reason, evidence=found, device_id=device_id)

    def _understood(
        self, node: Node, where: Topic, heard: Heard
    ) -> tuple[list[Reading], list[str]]:
        """What a message means; everything that others wait for is done at once."""
        for name in heard.died:
            self._buried(node, name)
        faults = list(heard.faults)
        readings: list[Reading] = []
        self._doubt(node)
        bound = node.devices.get(where.device)
        if bound is not None and (heard.born or heard.samples):
            device_id = bound.device.device_id
            if heard.born:
                bound.reported.forget()
                bound.readings.born(heard.samples, bound.reported)
                self._presence.heard(device_id)
            else:
                self._presence.reported(device_id)
            faults += bound.reported.take(heard.samples, born=heard.born)
            if not heard.born:
                readings, not_numbers = bound.readings.take(heard.samples, bound.reported)
                faults += [one for one in not_numbers if one not in faults]
            bound.news.set()
        return readings, faults

    def _buried(self, node: Node, name: str) -> None:
        """Of a node that died, every bound device did, told of before or not."""
        gone = [name] if name != NODE else list(node.devices)
        for one in gone:
            bound = node.devices.get(one)
            if bound is None:
                continue
            device_id = bound.device.device_id
            if self._presence.reachable(device_id):
                self._sink.noticed(
                    device_id=device_id, kind=FlagKind.OFFLINE, since=self._clock.now(),
                    evidence=_GONE,
                )  # fmt: skip
                bound.deaths += 1
            self._presence.heard(device_id, online=False)
            bound.news.set()
