"""What a broker says about sessions and messages: in words, counted, shown; and MQTT 5's extras."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest
from structlog.testing import capture_logs

from adapters.mqtt import wire
from adapters.mqtt.adapter import MqttAdapter
from adapters.mqtt.link import MqttBroker, MqttLink
from adapters.mqtt.reasons import REASONS, fault_of, words
from config.loading import load_settings
from gateway.bootstrap.adapters import mqtt_broker
from gateway.cli.broker.passwords import hashed
from gateway.observability.metrics import Metrics
from marketplace_core.dispatch.setpoint import Applied
from tests.harness.access import GATEWAY, PROFILE, settings_file
from tests.harness.clocks import eventually
from tests.harness.lab import HOST, Lab, wait_for
from tests.harness.mqtt import ORG, SILENT, Mosquitto, gateway, rig, setpoint
from tests.harness.running_order import START
from tests.harness.sinks import ListSink

pytestmark = pytest.mark.process
Said = Counter[tuple[str, str]]
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[int]:
    """A broker that plays a script to every connection; its port."""
    open_now = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            with suppress(asyncio.IncompleteReadError, OSError):
                await script(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            open_now -= 1

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield server.sockets[0].getsockname()[1]
        await eventually(lambda: open_now == 0, what="the connections to end")


async def greeted(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: int, *,
    code: int = 1, connack: str = "",
) -> None:  # fmt: skip
    """Let a client in and answer its subscriptions with a code."""
    await packet(reader)
    none = "00" if version == 5 else ""  # of properties
    more = bytes.fromhex(connack or none)
    writer.write(bytes([0x20, 2 + len(more), 0, 0]) + more)
    subscribe = await packet(reader)
    granted = bytes.fromhex(none) + bytes([code]) * subscribe.count(b"flexway/")
    writer.write(bytes([0x90, 2 + len(granted), *subscribe[:2]]) + granted)


@asynccontextmanager
async def running(adapter: MqttAdapter) -> AsyncIterator[MqttAdapter]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(adapter.run(ListSink(), ready=lambda: None))
        yield adapter
        task.cancel()


def counting(port: int, names: Sequence[str] = (SILENT,), **more: Any) -> tuple[MqttAdapter, Said]:
    said: Said = Counter()

    def noted(packet: str, reason: str) -> None:
        said[packet, reason] += 1

    return gateway(port, names, noted=noted, **more), said


def passwords(folder: Path) -> str:
    path = folder / "passwords"
    path.write_text(f"{GATEWAY}:{hashed('secret')}\n")
    return f"password_file {path}"


@pytest.mark.parametrize(("version", "code"), [(5, 0x87), (4, 5)])
async def test_a_refused_login_is_said_in_words(tmp_path: Path, version: int, code: int) -> None:
    with Mosquitto(tmp_path, passwords(tmp_path), anonymous=False) as broker, capture_logs() as log:
        adapter, said = counting(broker.port, version=version, username=GATEWAY, password="wrong")
        async with running(adapter):
            await eventually(lambda: said["CONNACK", "not authorized"] > 0, what="a refusal")
            await eventually(lambda: bool(adapter.link_fault), what="a reason")
            assert adapter.link_fault == "the broker refused the connection: not authorized"
            assert not adapter.link_up
    refusals = [one for one in log if one["event"] == "mqtt_unavailable"]
    assert {one["reason"] for one in refusals} == {adapter.link_fault}
    said_codes = {one["code"] for one in log if one["event"] == "mqtt_refused"}
    assert said_codes == ({code} if version == 5 else set())
    assert "wrong" not in str(log)


async def test_an_up_link_has_no_fault_and_its_answers_are_counted(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        adapter, said = counting(broker.port)
        async with running(adapter):
            await eventually(lambda: adapter.link_up, what="both sessions")
            assert adapter.link_fault == ""
            assert said["CONNACK", "success"] == 2
            assert said["SUBACK", "granted QoS 1"] == 3


async def test_messages_that_the_broker_drops_are_counted_and_said_once(tmp_path: Path) -> None:
    """An ACL that lets the gateway hear and not speak."""
    rules = tmp_path / "acl"
    rules.write_text("topic read #\ntopic write flexway/v1/+/+/+/status\n")
    with Mosquitto(tmp_path, f"acl_file {rules}") as broker, capture_logs() as log:
        adapter, said = counting(broker.port, answer_s=0.5)
        async with running(adapter):
            await eventually(lambda: adapter.link_up, what="both sessions")
            for _ in range(3):
                await adapter.release(SILENT, order_id="ord_1", revision=0)
            await eventually(lambda: said["PUBACK", "not authorized"] == 3, what="refusals")
    refused = [one for one in log if one["event"] == "mqtt_refused"]
    assert [(one["packet"], one["reason"]) for one in refused] == [("PUBACK", "not authorized")]
    assert refused[0]["log_level"] == "warning"


async def test_a_goodbye_of_a_real_broker_is_said_in_words(tmp_path: Path) -> None:
    """It takes no packet as long as a command."""
    with Mosquitto(tmp_path, "max_packet_size 100") as broker, capture_logs() as log:
        adapter, said = counting(broker.port, answer_s=0.5)
        async with running(adapter):
            await eventually(lambda: adapter.link_up, what="both sessions")
            await adapter.release(SILENT, order_id="ord_1", revision=0)
            await eventually(lambda: said["DISCONNECT", "packet too large"] > 0, what="the goodbye")
    reason = "the broker ended the session: packet too large"
    assert reason in {one["reason"] for one in log if one["event"] == "mqtt_session_lost"}


@pytest.mark.parametrize("pause_s", [0.0, 0.1])
async def test_last_words_are_heard_however_soon_the_broker_hangs_up(pause_s: float) -> None:
    """DISCONNECT with a reason string (property 0x1F), MQTT 5, section 3.14."""

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greeted(reader, writer, 5)
        await asyncio.sleep(0.1)
        writer.write(bytes.fromhex("d000 e007 8e 05 1f0002") + b"ok")
        await asyncio.sleep(pause_s)

    with capture_logs() as log:
        async with scripted(broker) as port:
            adapter, said = counting(port)
            async with running(adapter):
                await eventually(
                    lambda: said["DISCONNECT", "session taken over"] >= 2, what="both goodbyes"
                )
                await eventually(
                    lambda: any(one["event"] == "mqtt_session_lost" for one in log), what="the loss"
                )
    reasons = {one["reason"] for one in log if one["event"] == "mqtt_session_lost"}
    assert reasons == {"the broker ended the session: session taken over"}


@pytest.mark.parametrize(
    ("version", "code", "reason"),
    [(5, 0x87, "not authorized"), (5, 0x00, "granted QoS 0"), (4, 0x80, "unspecified error"),
     (5, 0x7F, "unknown")],
)  # fmt: skip
async def test_a_subscription_that_is_not_granted_is_said_in_words(
    version: int, code: int, reason: str
) -> None:
    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greeted(reader, writer, version, code=code)
        await reader.read()

    async with scripted(broker) as port:
        adapter, said = counting(port, version=version)
        async with running(adapter):
            await eventually(lambda: said["SUBACK", reason] >= 2, what="refusals")
            await eventually(lambda: reason in adapter.link_fault, what="the fault")


async def packet(reader: asyncio.StreamReader) -> bytes:
    """The next packet without its fixed header; remaining lengths below 16,384."""
    _, length = await reader.readexactly(2)
    if length & 0x80:
        length = (length & 0x7F) + 128 * (await reader.readexactly(1))[0]
    return await reader.readexactly(length)


async def test_a_command_says_where_and_with_what_to_answer(tmp_path: Path) -> None:
    """To a device that speaks MQTT 5; one that does not gets the same command without."""
    with Mosquitto(tmp_path) as broker:
        async with rig(broker.port, "ev-1") as lab:
            heard = []
            for version in (aiomqtt.ProtocolVersion.V5, aiomqtt.ProtocolVersion.V311):
                listener = aiomqtt.Client(HOST, broker.port, protocol=version)
                async with listener:
                    await listener.subscribe(wire.topic(ORG, "ev-1", "command"), qos=1)
                    outcome = (await lab.issue(setpoint("ev-1")))["ev-1"]
                    assert isinstance(outcome, Applied)
                    heard.append(await asyncio.wait_for(anext(aiter(listener.messages)), 5))
    with_extras, plain = heard
    properties = with_extras.properties
    assert properties is not None
    assert properties.ResponseTopic == wire.topic(ORG, "ev-1", "ack")
    assert properties.CorrelationData == b"spt_ev-1"
    assert 1 <= properties.MessageExpiryInterval <= 5  # no longer than its time to live
    assert not with_extras.retain
    first, second = (wire.decode_command(bytes(one.payload)) for one in heard)
    assert (first.id, first.power_w) == (second.id, second.power_w) == ("spt_ev-1", -2000.0)
    assert plain.properties is None or not plain.properties.json()


@pytest.mark.parametrize("version", [5, 4])
async def test_what_waits_for_the_brokers_window_is_limited(version: int) -> None:
    """A broker that acknowledges nothing: its window fills, then the queue, then it is said."""

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Receive Maximum (property 0x21) of 4.
        await greeted(reader, writer, version, connack="03210004" if version == 5 else "")
        await reader.read()

    def nothing(_messages: object, _acknowledge: object) -> None:
        """No message comes."""

    async with scripted(broker) as port:
        session = MqttBroker(
            host=HOST, port=port, client_id="gateway", version=version, most_waiting=10
        )
        link, up = MqttLink(session, ["flexway/v1/a"], nothing), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(link.run(up.set))
            await asyncio.wait_for(up.wait(), 10)
            sent = [link.publish(b"flexway/v1/b", b"x") for _ in range(100)]
            task.cancel()
    assert sent[:10] == [True] * 10
    if version == 5:
        assert not all(sent)
        assert sum(sent) <= 10 + 4


def test_the_words_name_no_address_and_no_secret() -> None:
    faults = {
        ConnectionRefusedError(111, "Connect call failed ('192.0.2.1', 8883)"): "cannot be reached",
        TimeoutError(): "does not answer in time",
        ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] ..."): "no TLS with the broker",
    }
    for error, expected in faults.items():
        assert expected in fault_of(error)
        assert "192.0.2.1" not in fault_of(error)


def test_codes_are_bounded_and_counted_from_the_start() -> None:
    """MQTT 5 has 3.2.2.2: 22, 3.4.2.1: 9, 3.9.3: 12 and 3.14.2.1: 28 that a server may send."""
    assert {name: len(codes) for name, codes in REASONS.items()} == {
        "CONNACK": 22 + 5, "PUBACK": 9, "SUBACK": 12, "DISCONNECT": 28,
    }  # fmt: skip
    assert words("PUBACK", 0xFE) == "unknown"
    metrics = Metrics()
    metrics.mqtt_reason("CONNACK", "not authorized")
    text = metrics.exposition().decode()
    for packet_name, codes in REASONS.items():
        for reason in {*codes.values(), "unknown"}:
            value = float((packet_name, reason) == ("CONNACK", "not authorized"))
            line = "flexway_mqtt_reason_codes_total"
            assert f'{line}{{packet="{packet_name}",reason="{reason}"}} {value}' in text


def test_readyz_and_metrics_show_why_the_broker_is_away(tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("wrong")
    with Mosquitto(tmp_path, passwords(tmp_path), anonymous=False) as broker:
        lab = Lab(tmp_path, START)
        lab.sections = {"mqtt": {
            "port": broker.port, "tls": False, "username": GATEWAY,
            "password_file": str(tmp_path / "wrong"),
            "devices": [{"device_id": "ev-1", "organisation": ORG, "profile": PROFILE}],
        }}  # fmt: skip
        lab.write_settings()
        service = lab.start()
        try:

            def degraded() -> list[str]:
                answer = httpx.get(f"{lab.url}/readyz").json()
                return [one for one in answer.get("degraded", []) if one.startswith("mqtt")]

            (said,) = wait_for(degraded, seconds=40, what="a degraded start", every_s=0.2)
            expected = "the broker refused the connection: not authorized"
            assert said == f"mqtt is not connected: {expected}"
            text = httpx.get(f"{lab.url}/metrics").text
        finally:
            assert service.stop() == 0
    series = 'flexway_mqtt_reason_codes_total{packet="CONNACK",reason="not authorized"} '
    (line,) = (one for one in text.splitlines() if one.startswith(series))
    assert float(line.removeprefix(series)) >= 1


def test_session_limits_are_settings(tmp_path: Path) -> None:
    limits = {
        "keepalive_s": 60, "session_expiry_s": 3600, "receive_maximum": 50,
        "maximum_packet_bytes": 300_000, "queue": 7,
    }  # fmt: skip
    made = mqtt_broker(load_settings(settings_file(tmp_path, {"ev-1": ORG}, limits)))
    assert (made.keepalive_s, made.session_expiry_s, made.receive_maximum) == (60, 3600, 50)
    assert (made.maximum_packet, made.most_waiting) == (300_000, 7)
