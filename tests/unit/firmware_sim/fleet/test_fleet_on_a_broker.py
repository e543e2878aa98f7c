"""A fleet on a real Mosquitto, with the gateway's adapter at the other end."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from click.testing import CliRunner

from adapters.mqtt.adapter import MqttAdapter
from adapters.mqtt.adapter import MqttDevice as Binding
from adapters.mqtt.link import MqttBroker
from adapters.mqtt.wire import decode_status
from firmware_sim.__main__ import simulator
from firmware_sim.fleet.limits import allow_open_files
from firmware_sim.fleet.population import Population, populate
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Applied
from marketplace_core.errors import ConfigError
from marketplace_core.units import Kw
from marketplace_core.verification.flags import FlagKind
from tests.harness.access import run_acl, settings_file
from tests.harness.certificates import Authority
from tests.harness.clocks import IdentityTime, WallClock, eventually
from tests.harness.fleets import connected
from tests.harness.lab import HOST, free_port, mosquitto
from tests.harness.mqtt import Mosquitto, setpoint
from tests.harness.sinks import ListSink

pytestmark = pytest.mark.process
COUNT = 30
ORG = "org_seller"
FLEET = populate("mqtt", COUNT, seed=7)
BATTERIES = [name for name in FLEET.ids if "-bat-" in name]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with mosquitto(tmp_path_factory.mktemp("broker")) as port:
        yield port


@asynccontextmanager
async def gateway(port: int, fleet: Population) -> AsyncIterator[tuple[MqttAdapter, ListSink]]:
    """The gateway's adapter; other tests' messages on the broker are older than its session."""
    bindings = [
        Binding(
            device_id=name, organisation=ORG,
            profile=DeviceProfile(
                device_id=name, protocol="mqtt", min_kw=Kw(float(fleet.low_kw[n])),
                max_kw=Kw(float(fleet.high_kw[n])), lease=LeaseKind.TIME_TO_LIVE, lease_s=600.0,
            ),
        )
        for n, name in enumerate(fleet.ids)
    ]  # fmt: skip
    adapter = MqttAdapter(
        MqttBroker(host=HOST, port=port, client_id=f"gateway-{free_port()}", session_expiry_s=0),
        bindings, clock=WallClock(), time_map=IdentityTime(), ack_timeout_s=5.0,
    )  # fmt: skip
    sink, ready = ListSink(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(adapter.run(sink, ready=ready.set))
        await asyncio.wait_for(ready.wait(), 10)
        yield adapter, sink
        running.cancel()


async def test_readings_arrive_once_and_are_forgotten_when_stored(port: int) -> None:
    async with gateway(port, FLEET) as (adapter, sink), connected(port) as (_, fleet, stats):
        ids = fleet.population.ids
        await eventually(
            lambda: len({r.series for r in sink.readings if r.sequence == 3}) == len(ids),
            seconds=20, what="four readings of everybody",
        )  # fmt: skip
        await eventually(lambda: all(fleet.kept(n) <= 2 for n in range(len(ids))), what="stored")
        assert all(adapter.connected(name) for name in ids)
        assert stats.stored > 0
        assert fleet.population.old.any()
        assert not fleet.population.old.all()
    counts = Counter((r.series, r.boot, r.sequence) for r in sink.readings)
    assert set(counts.values()) == {1}
    assert sink.quarantined == []


async def test_a_setpoint_is_applied_and_moves_the_device(port: int) -> None:
    async with gateway(port, FLEET) as (adapter, _), connected(port, count=COUNT) as (_, fleet, _):
        await eventually(lambda: all(adapter.connected(n) for n in FLEET.ids), what="presence")
        wanted = [setpoint(name, 1.0) for name in BATTERIES]
        outcomes = [one async for batch in adapter.issue(wanted) for one in batch]
        assert {type(one) for one in outcomes} == {Applied}
        numbers = [FLEET.ids.index(name) for name in BATTERIES]
        await eventually(
            lambda: bool((fleet.core.plant.power_kw[numbers] == 1.0).all()), what="their power"
        )
        await adapter.release(BATTERIES[0], order_id="ord_1", revision=1)
        assert fleet.commanded_kw(numbers[0]) is None
        assert fleet.commanded_kw(numbers[1]) == 1.0


async def test_a_storm_is_seen_as_offline_and_everybody_is_back_with_nothing_lost(
    port: int,
) -> None:
    entry = "fault: reconnect_storm, at: 3"
    async with (
        gateway(port, FLEET) as (adapter, sink),
        connected(port, entry, count=COUNT) as (_, fleet, stats),
    ):
        await eventually(lambda: stats.losses == COUNT, seconds=20, what="the storm")
        await eventually(lambda: stats.connects == 2 * COUNT, seconds=20, what="the return")
        flagged = {device for device, kind in sink.notices if kind is FlagKind.OFFLINE}
        assert flagged == set(FLEET.ids)
        await eventually(lambda: all(adapter.connected(n) for n in FLEET.ids), what="presence")
        last = {n: int(fleet._sequence[n]) for n in range(COUNT)}
        await eventually(
            lambda: all(
                {r.sequence for r in sink.readings if r.series == FLEET.ids[n]} >= set(range(seen))
                for n, seen in last.items()
            ),
            seconds=20, what="every reading",
        )  # fmt: skip
    counts = Counter((r.series, r.boot, r.sequence) for r in sink.readings)
    assert max(counts.values()) <= 2, "sent again at most once, with the same numbers"


async def test_a_reboot_and_a_replay_are_seen_by_the_gateway(port: int) -> None:
    boots, replays = BATTERIES[0], BATTERIES[1]
    entries = (
        f"fault: reboot, at: 3, down: 1, devices: {{ids: [{boots}]}}",
        f"fault: replay, at: 3, until: 60, every: 30, devices: {{ids: [{replays}]}}",
    )
    async with (
        gateway(port, FLEET) as (_, sink),
        connected(port, *entries, count=COUNT) as (_, fleet, _),
    ):
        number = FLEET.ids.index(boots)
        first = fleet.boot(number)
        await eventually(lambda: (replays, FlagKind.REPLAYS) in sink.notices, seconds=20,
                         what="the replay")  # fmt: skip
        await eventually(
            lambda: any(r.series == boots and r.boot == first + 1 for r in sink.readings),
            seconds=20, what="a reading of the new boot",
        )  # fmt: skip
        assert (boots, FlagKind.OFFLINE) in sink.notices
    assert {device for device, kind in sink.notices if kind is FlagKind.REPLAYS} == {replays}


async def test_the_broker_comes_back_and_so_does_everybody(tmp_path: Path) -> None:
    port = free_port(lasting=True)
    with mosquitto(tmp_path, port=port):
        fleet_running = connected(port, count=COUNT)
        _, _, stats = await fleet_running.__aenter__()
    try:
        await eventually(lambda: stats.failed > 0, seconds=20, what="tries that find nobody")
        with mosquitto(tmp_path, port=port):
            await eventually(
                lambda: stats.connects == 2 * COUNT, seconds=30, what="everybody to be back"
            )
    finally:
        await fleet_running.__aexit__(None, None, None)


async def test_a_stop_says_goodbye_and_a_lost_link_lets_the_will_speak(port: int) -> None:
    heard: list[tuple[str, bool]] = []

    async def listen(client: aiomqtt.Client) -> None:
        async for message in client.messages:
            if not message.retain:
                online = decode_status(bytes(message.payload)).online
                heard.append((str(message.topic).split("/")[4], online))

    async with aiomqtt.Client(HOST, port) as client:
        await client.subscribe("flexway/v1/+/+/+/status", qos=1)
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(listen(client))
            async with connected(port, count=10, seed=8) as (host, _, _):
                name = host._fleet.population.ids[0]
                host._sessions[0].abort()
                await eventually(lambda: (name, False) in heard, what="the Will")
                await eventually(lambda: heard[-1:] == [(name, True)], what="its return")
                stopped = len(heard)
            # Before the stop a Will of other sessions on this broker may have spoken late.
            everybody = dict.fromkeys(host._fleet.population.ids, 1)
            await eventually(
                lambda: (
                    Counter(name for name, online in heard[stopped:] if not online) == everybody
                ),
                what="one goodbye of each",
            )
            listening.cancel()


async def test_a_broker_that_refuses_is_named_once_and_the_remedy_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch()
    with Mosquitto(tmp_path, f"password_file {passwords}", anonymous=False) as broker:
        async with connected(broker.port, count=5, old_share=0.0, wait=False) as (_, _, stats):
            await eventually(lambda: stats.refused >= 8, seconds=20, what="refusals")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "(MQTT 5, code 135); --handout names the folder with passwords" in said[0]


async def test_a_fleet_enters_a_guarded_broker_over_tls(tmp_path: Path) -> None:
    names, out = populate("mqtt", 8, seed=7).ids, tmp_path / "access"
    assert run_acl(settings_file(tmp_path, dict.fromkeys(names, ORG)), out).exit_code == 0
    authority, door = Authority(tmp_path / "tls"), free_port()
    certificate, key = authority.issue("broker")
    rules = (
        f"acl_file {out / 'acl'}", f"password_file {out / 'passwords'}",
        f"listener {door} {HOST}", f"certfile {certificate}", f"keyfile {key}",
        "use_username_as_clientid true",
    )  # fmt: skip
    tls = ssl.create_default_context(cafile=str(authority.certificate))
    with Mosquitto(tmp_path, *rules, anonymous=False):
        async with connected(door, count=8, tls=tls, handout=out / "handout") as (host, _, stats):
            await eventually(lambda: stats.published >= 16, what="telemetry")
            await eventually(
                lambda: not any(session._in_flight for session in host._sessions),
                what="acknowledgements of the broker",
            )
    assert stats.refused == 0
    assert stats.connects == 8


def test_a_limit_of_open_files_that_is_too_low_says_what_to_do() -> None:
    with pytest.raises(ConfigError) as raised:
        allow_open_files(1 << 30)
    said = str(raised.value)
    assert said.startswith("1073741824 connections need 1073741888 open files")
    for remedy in ("ulimit -n", "limits.conf", "LimitNOFILE", "fewer devices", "broker"):
        assert remedy in said


def test_passwords_do_not_leave_the_machine_in_clear_text(tmp_path: Path) -> None:
    arguments: list[Any] = ["fleet", "mqtt", "--broker-host", "broker.example", "--handout",
                            str(tmp_path)]  # fmt: skip
    done = CliRunner().invoke(simulator, arguments)
    assert isinstance(done.exception, ConfigError)
    assert "in clear text: give --ca FILE" in str(done.exception)


def test_a_device_without_a_password_is_named_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / f"{FLEET.ids[0]}.password").touch()
    arguments = ["fleet", "mqtt", "--devices", "3", "--seed", "7", "--handout", str(tmp_path)]
    done = CliRunner().invoke(simulator, arguments)
    assert isinstance(done.exception, ConfigError)
    assert f"has no {FLEET.ids[1]}.password, and so for 2 devices" in str(done.exception)
