"""One contract for every DeviceAdapter: the fake in memory and the real ones on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest

from marketplace_core.dispatch.setpoint import (
    Applied,
    Refused,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
)
from marketplace_core.errors import DeviceError
from marketplace_core.units import Kw
from tests.harness.benches import (
    AWAY,
    HERE,
    HIGH_KW,
    LOW_KW,
    Bench,
    FakeBench,
    ModbusBench,
    MqttBench,
    OpenAdrBench,
    WebhookBench,
    issue,
    setpoint,
)
from tests.harness.clocks import eventually
from tests.harness.mqtt import Mosquitto
from tests.harness.registers import RegistersBench
from tests.harness.sparkplug import SparkplugBench

pytestmark = pytest.mark.process
NOBODY = "dev-nobody"


@contextmanager
def made(protocol: str, folder: Path) -> Iterator[Bench]:
    if protocol in {"mqtt", "sparkplug"}:
        with Mosquitto(folder) as broker:
            yield (MqttBench if protocol == "mqtt" else SparkplugBench)(broker.port)
        return
    makers: dict[str, Callable[[], Bench]] = {
        "fake": FakeBench, "modbus": ModbusBench, "openadr": lambda: OpenAdrBench(folder),
        "registers": RegistersBench, "webhook": WebhookBench,
    }  # fmt: skip
    yield makers[protocol]()


@pytest.fixture(params=["fake", "mqtt", "sparkplug", "modbus", "registers", "openadr", "webhook"])
def idle(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A bench that does not run yet."""
    with made(request.param, tmp_path) as bench:
        yield bench


@pytest.fixture
async def bench(idle: Bench) -> AsyncIterator[Bench]:
    async with idle.running():
        yield idle


async def in_force(bench: Bench, power_kw: float | None) -> None:
    await eventually(lambda: bench.commanded_kw() == power_kw, what=f"{power_kw} kW in force")


async def test_every_setpoint_has_exactly_one_outcome(bench: Bench) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    outcomes = await issue(  # which counts them
        bench,
        setpoint(1),
        setpoint(2, order_id="ord_2", power_kw=Kw(LOW_KW - 0.5)),
        setpoint(3, order_id="ord_3", valid_until=past),
        setpoint(4, device_id=NOBODY),
        setpoint(5, device_id=AWAY),
    )
    kinds = {name: type(outcome) for name, outcome in outcomes.items()}
    assert kinds == {"spt_1": Applied, "spt_2": Refused, "spt_3": Unconfirmed,
                     "spt_4": Refused, "spt_5": Unreachable}  # fmt: skip
    assert set(kinds.values()) == set(get_args(SetpointOutcome))
    assert await issue(bench) == {}


async def test_a_setpoint_is_applied_by_the_device_that_it_names(bench: Bench) -> None:
    outcome = (await issue(bench, setpoint(power_kw=Kw(-3.5))))["spt_1"]
    assert isinstance(outcome, Applied)
    assert outcome.device_id == HERE
    assert outcome.read_back_kw in {-3.5, None}
    await in_force(bench, -3.5)


async def test_an_id_issued_twice_has_one_effect(bench: Bench) -> None:
    one = setpoint()
    for _ in range(3):
        assert isinstance((await issue(bench, one))["spt_1"], Applied)
    both = await asyncio.gather(issue(bench, one), issue(bench, one))
    assert all(isinstance(outcomes["spt_1"], Applied) for outcomes in both)
    await in_force(bench, -2.0)
    assert bench.effects() == 1


@pytest.mark.parametrize("power_kw", [LOW_KW - 0.1, HIGH_KW + 0.1, float("nan"), float("inf")])
async def test_outside_its_bounds_is_refused_and_nothing_goes_on_the_wire(
    bench: Bench, power_kw: float
) -> None:
    outcome = (await issue(bench, setpoint(power_kw=Kw(power_kw))))["spt_1"]
    assert isinstance(outcome, Refused)
    # What comes after it on the wire arrived, so it would have too.
    await issue(bench, setpoint(2, order_id="ord_2"))
    assert bench.effects() == 1
    assert bench.commanded_kw() == -2.0


@pytest.mark.parametrize("power_kw", [LOW_KW, HIGH_KW])
async def test_the_bounds_themselves_are_allowed(bench: Bench, power_kw: float) -> None:
    assert isinstance((await issue(bench, setpoint(power_kw=Kw(power_kw))))["spt_1"], Applied)
    await in_force(bench, power_kw)


async def test_an_expired_setpoint_is_unconfirmed_and_never_applied(bench: Bench) -> None:
    now = datetime.now(UTC)
    span = {"valid_from": now - timedelta(minutes=10), "valid_until": now - timedelta(seconds=1)}
    outcome = (await issue(bench, setpoint(**span)))["spt_1"]
    assert isinstance(outcome, Unconfirmed)
    assert bench.heard() == 0
    assert bench.commanded_kw() is None


async def test_a_device_nobody_bound_is_refused_and_cannot_be_asked(bench: Bench) -> None:
    outcome = (await issue(bench, setpoint(device_id=NOBODY)))["spt_1"]
    assert isinstance(outcome, Refused)
    released = await bench.adapter.release(NOBODY, order_id="ord_1", revision=0)
    assert isinstance(released, Refused)
    assert not bench.adapter.connected(NOBODY)
    with pytest.raises(DeviceError) as caught:
        await bench.adapter.read_back(NOBODY)
    assert not caught.value.retryable


async def test_an_older_revision_is_refused_after_a_newer_one(bench: Bench) -> None:
    newer = setpoint(2, revision=2, power_kw=Kw(-4.0))
    older = setpoint(1, revision=1)
    assert isinstance((await issue(bench, newer))["spt_2"], Applied)
    assert isinstance((await issue(bench, older))["spt_1"], Refused)
    await in_force(bench, -4.0)
    assert bench.effects() == 1


async def test_a_newer_revision_replaces_an_older_one(bench: Bench) -> None:
    await issue(bench, setpoint(1))
    newer = setpoint(2, revision=1, power_kw=Kw(-4.0))
    assert isinstance((await issue(bench, newer))["spt_2"], Applied)
    await in_force(bench, -4.0)


async def test_release_returns_to_the_fallback_and_repeating_it_is_harmless(bench: Bench) -> None:
    await issue(bench, setpoint())
    await in_force(bench, -2.0)
    for _ in range(2):
        outcome = await bench.adapter.release(HERE, order_id="ord_1", revision=0)
        assert isinstance(outcome, Applied)
        assert (outcome.setpoint_id, outcome.device_id) == ("", HERE)
        await in_force(bench, None)


async def test_release_of_what_was_never_issued_is_harmless(bench: Bench) -> None:
    outcome = await bench.adapter.release(HERE, order_id="ord_9", revision=0)
    assert isinstance(outcome, Applied)
    assert bench.effects() == 0


async def test_release_of_an_older_revision_leaves_the_newer_one(bench: Bench) -> None:
    await issue(bench, setpoint(revision=3))
    outcome = await bench.adapter.release(HERE, order_id="ord_1", revision=2)
    assert isinstance(outcome, Refused)
    await in_force(bench, -2.0)


async def test_release_of_another_order_leaves_what_is_in_force(bench: Bench) -> None:
    await issue(bench, setpoint())
    await bench.adapter.release(HERE, order_id="ord_9", revision=0)
    assert bench.commanded_kw() == -2.0
    assert (await bench.adapter.read_back(HERE)).active


async def test_read_back_tells_what_is_in_force(bench: Bench) -> None:
    assert not (await bench.adapter.read_back(HERE)).active
    await issue(bench, setpoint(power_kw=Kw(-3.5)))
    told = await bench.adapter.read_back(HERE)
    assert (told.device_id, told.active, told.setpoint_kw) == (HERE, True, -3.5)
    assert told.setpoint_id in {"spt_1", None}
    await bench.adapter.release(HERE, order_id="ord_1", revision=0)
    assert not (await bench.adapter.read_back(HERE)).active


async def test_a_device_that_is_away_is_unreachable_and_holds_up_nobody(bench: Bench) -> None:
    async with asyncio.TaskGroup() as tasks:
        away = tasks.create_task(issue(bench, setpoint(1, device_id=AWAY)))
        here = tasks.create_task(issue(bench, setpoint(2)))
    assert isinstance(away.result()["spt_1"], Unreachable)
    assert isinstance(here.result()["spt_2"], Applied)
    assert not bench.adapter.connected(AWAY)
    released = await bench.adapter.release(AWAY, order_id="ord_1", revision=0)
    assert isinstance(released, Applied | Unreachable | Unconfirmed)
    if bench.remembers:
        assert not (await bench.adapter.read_back(AWAY)).active  # it was never told anything
        return
    with pytest.raises(DeviceError) as caught:
        await bench.adapter.read_back(AWAY)
    assert caught.value.retryable


async def test_cancelling_run_leaves_no_task_and_no_socket(idle: Bench) -> None:
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    async with idle.running():
        await issue(idle, setpoint())
        assert asyncio.all_tasks() > tasks
    await eventually(lambda: asyncio.all_tasks() <= tasks, what="every task to end")
    await eventually(lambda: open_sockets() <= sockets, what="every socket to be closed")


def open_sockets() -> int:
    """Sockets of this process."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            count += str(descriptor.readlink()).startswith("socket:")
        except OSError:  # the descriptor of the listing itself
            continue
    return count


@pytest.mark.parametrize("power_kw", [-3.25, 0.0, 1.5])
async def test_readings_arrive_with_sign_and_unit(bench: Bench, power_kw: float) -> None:
    if not bench.measures:
        pytest.skip("its readings come by the API")
    bench.measure(power_kw)
    await eventually(
        lambda: any(one.power_kw == power_kw for one in bench.sink.readings), what="the reading"
    )
    assert {one.series for one in bench.sink.readings} == {HERE}
    assert all(one.seconds > 0 for one in bench.sink.readings)
    assert bench.sink.quarantined == []


async def test_profiles_name_every_device_once(bench: Bench) -> None:
    assert sorted(one.device_id for one in bench.adapter.profiles()) == [AWAY, HERE]
