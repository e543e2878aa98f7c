"""A day in lockstep: the plant steps when it is told to, and no clock of this machine counts.

Behind each protocol stands an agent that does what the device's firmware, the bus or the
owner's backend would do with commands and readings; all of them share the market's time.
Nothing here opens a socket: `pipe.py` carries requests and answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from firmware_sim.agents import Agent, Asked, BusAgent, EventAgent
from firmware_sim.faults import by_device
from firmware_sim.mqtt_agent import Broker, MqttAgent
from firmware_sim.plant import MINUTE, Minutes, Plant
from firmware_sim.scenario import Scenario
from firmware_sim.world import World
from marketplace_core.errors import RejectedError
from marketplace_core.verification.reading import Reading

PROTOCOL_VERSION = 1
Answer = dict[str, Any]


class Lockstep:
    """The devices of one day, driven by requests. All instants are market time."""

    def __init__(
        self,
        scenario: Scenario,
        world: World,
        plant: Plant,
        truth: Callable[[list[Reading]], None],
    ) -> None:
        """`truth` gets every minute's readings."""
        self._scenario = scenario
        self._plant = plant
        self._truth = truth
        self._minutes = Minutes(plant.at)
        self._now = plant.at
        self._broker = Broker()
        self._agents = self._make_agents(scenario, world)

    def hello(self) -> Answer:
        """Who is here, and for how long."""
        market = self._scenario.market
        return {
            "version": PROTOCOL_VERSION,
            "start_us": micros(market.sim_start),
            "end_us": micros(market.sim_end),
            "devices": self._scenario.protocols(),
        }

    def now(self, at: datetime) -> None:
        """Take note of the time at which a request is made; time does not go back."""
        self._now = max(self._now, at)

    def step(self, until: datetime) -> Answer:
        """Advance in whole minutes; what reached the gateway meanwhile, in a fixed order."""
        if until < self._plant.at or (until - self._plant.at) % MINUTE != timedelta(0):
            raise RejectedError(
                f"{until.isoformat()} from {self._plant.at.isoformat()}", field="until_us",
                rule="a step goes forward by whole minutes",
            )  # fmt: skip
        frames: list[Answer] = self._broker.released()
        while self._plant.at < until:
            frames += self._minute()
        self._now = max(self._now, until)
        return {"frames": frames}

    def set(self, asked: Asked) -> Answer:
        """Hand a setpoint to a device."""
        return self._agent(asked.device).set(asked, self._now)

    def release(self, device: str, order_id: str, revision: int) -> Answer:
        """Return a device to its own behaviour."""
        return self._agent(device).release(order_id, revision, self._now)

    def query(self, device: str) -> Answer:
        """What a device says is in force."""
        return self._agent(device).query(self._now)

    def stored(self, device: str, boot: int, through: int) -> Answer:
        """Tell an MQTT device what is stored."""
        agent = self._agent(device)
        if not isinstance(agent, MqttAgent):
            raise RejectedError(
                f"{device} does not speak MQTT", field="device",
                rule="only readings by MQTT are confirmed",
            )  # fmt: skip
        agent.stored(boot, through, self._now)
        return {}

    def link(self, *, up: bool) -> Answer:
        """Raise or cut the gateway's link to the broker."""
        self._broker.up = up
        return {}

    def _minute(self) -> list[Answer]:
        since, time = self._plant.at, self._plant.at + MINUTE
        self._now = max(self._now, since)
        commands = {name: agent.commanded_kw(since) for name, agent in self._agents.items()}
        readings = self._minutes.add(since, time, self._plant.step(time, commands))
        self._truth(readings)
        by_series = {reading.series: reading for reading in readings}
        frames: list[Answer] = []
        for name, agent in self._agents.items():
            frames += agent.frames(by_series[name])
        return frames

    def _agent(self, device: str) -> Agent:
        if device not in self._agents:
            raise RejectedError(
                f"there is no device {device!r}", field="device", rule="a device of the scenario",
                remedy="hello lists them",
            )  # fmt: skip
        return self._agents[device]

    def _make_agents(self, scenario: Scenario, world: World) -> Mapping[str, Agent]:
        faults = by_device(world.faults)
        driven = {profile.device_id for profile in scenario.profiles}
        owners = {one.id: one.seller for one in scenario.chargers}
        agents: dict[str, Agent] = {}
        for device, protocol in scenario.protocols().items():
            own = faults.get(device, ())
            if protocol == "modbus":
                agents[device] = BusAgent(device, own, driven=device in driven)
            elif protocol == "mqtt":
                boot = round(scenario.market.sim_start.timestamp())
                agents[device] = MqttAgent(
                    device, own, organisation=owners[device], boot=boot, broker=self._broker
                )
            else:
                agents[device] = EventAgent(device, own, protocol=protocol)
        return agents


def micros(at: datetime) -> int:
    """Whole Unix microseconds of an instant."""
    return round(at.timestamp() * 1e6)
