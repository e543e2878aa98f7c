"""Live device state: in memory and shared through Redis, the planner sees the same."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from gateway.bus.client import open_redis
from gateway.live import Live, LiveState
from gateway.live_redis import RedisLiveState
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.ports import Clock
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading
from tests.harness.clocks import WallClock, eventually
from tests.harness.servers import PASSWORD, RedisServer, redis

pytestmark = [pytest.mark.process]
PROFILES = {
    name: DeviceProfile(
        device_id=name, protocol="mqtt", min_kw=Kw(-7.0), max_kw=Kw(0.0), telemetry_s=60.0
    )
    for name in ("ev-1", "ev-2")
}
_names = itertools.count()
MakeLive = Callable[..., Live]


def reading(
    age_s: float, power_kw: float = -2.0, *, series: str = "ev-1", **more: object
) -> Reading:
    start = WallClock().now() - timedelta(seconds=age_s + 60.0)
    fields = {"series": series, "start": start, "seconds": 60.0, "power_kw": Kw(power_kw), **more}
    return Reading(**fields)  # type: ignore[arg-type]


def shared(
    server: RedisServer, *, prefix: str = "", clock: Clock | None = None,
    shown: list[bool] | None = None,
) -> RedisLiveState:  # fmt: skip
    number = next(_names)
    return RedisLiveState(
        PROFILES, clock or WallClock(), open_redis(server.url, password=PASSWORD, timeout_s=0.5),
        prefix=prefix or f"live-{number}", origin=f"run-{number}", timeout_s=0.5,
        show=(shown if shown is not None else []).append,
    )  # fmt: skip


@pytest.fixture(params=["memory", "redis"])
def make_live(request: pytest.FixtureRequest) -> MakeLive:
    if request.param == "memory":
        return lambda: LiveState(PROFILES, WallClock())
    return lambda: shared(request.getfixturevalue("redis_server"))


@asynccontextmanager
async def running(*states: Live) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        for state in states:
            await state.load()
        started = [tasks.create_task(state.run()) for state in states]
        yield
        for task in started:
            task.cancel()
    for state in states:
        await state.close()


async def test_the_newest_reading_stands_and_an_older_one_never_replaces_it(
    make_live: MakeLive,
) -> None:
    live = make_live()
    async with running(live):
        new, old = reading(0, -3.0), reading(600, -1.0)
        live.update([new, old])
        assert live.newest("ev-1") == new
        again = Reading(series="ev-1", start=new.start, seconds=60.0, power_kw=Kw(-4.0))
        live.update([again])
        assert live.newest("ev-1") == again
        assert live.newest("ev-2") is None


async def test_what_the_planner_sees(make_live: MakeLive) -> None:
    live = make_live()
    async with running(live):
        assert live.device("nobody") is None
        silent = live.device("ev-1")
        assert silent is not None
        assert (silent.reference_kw, silent.connected) == (None, False)
        live.update([reading(0, -3.0, sample_kw=Kw(-3.5), soc_kwh=12.5, available=False)])
        heard = live.device("ev-1")
        assert heard is not None
        assert (heard.reference_kw, heard.soc_kwh, heard.available) == (-3.5, 12.5, False)
        assert heard.connected
        assert heard.profile is PROFILES["ev-1"]


async def test_a_device_is_stale_after_five_missed_intervals(make_live: MakeLive) -> None:
    live = make_live()
    async with running(live):
        live.update([reading(290), reading(310, series="ev-2")])
        assert live.stale() == ["ev-2"]


async def test_meters_that_are_no_devices_are_kept_and_no_device(make_live: MakeLive) -> None:
    live = make_live()
    async with running(live):
        live.update([reading(0, series="meter-1")])
        assert live.newest("meter-1") is not None
        assert live.device("meter-1") is None


async def test_warmed_once_every_device_was_heard_since_the_start(make_live: MakeLive) -> None:
    live = make_live()
    async with running(live), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(live.warmed())
        live.update([reading(-1), reading(600, series="ev-2")])
        await asyncio.sleep(0.05)
        assert not waiting.done()
        live.update([reading(-1, series="ev-2")])
        await asyncio.wait_for(waiting, 5)


# What only the shared one can do, or fail to do.


async def test_two_processes_see_one_state(redis_server: RedisServer) -> None:
    one, other = shared(redis_server, prefix="two"), shared(redis_server, prefix="two")
    async with running(one, other):
        mine, theirs = reading(0, -1.0), reading(0, -2.0, series="ev-2", soc_kwh=3.25)
        one.update([mine])
        other.update([theirs])
        for live in (one, other):
            await eventually(lambda live=live: live.newest("ev-1") == mine, what="ev-1")
            await eventually(lambda live=live: live.newest("ev-2") == theirs, what="ev-2")
        assert other.stale() == []


async def test_a_restart_starts_warm(redis_server: RedisServer) -> None:
    whole = reading(0, -1 / 3, soc_kwh=2.5, available=False, sample_kw=Kw(-1e-9), boot=7,
                    sequence=2**53 + 1)  # fmt: skip
    before = shared(redis_server, prefix="warm")
    async with running(before):
        before.update([whole])
        await eventually(lambda: "start_us" in hash_of(redis_server, "warm", "ev-1"), what="ev-1")
    after = shared(redis_server, prefix="warm")
    async with running(after):
        assert after.newest("ev-1") == whole
        assert after.stale() == ["ev-2"]


def hash_of(server: RedisServer, prefix: str, device_id: str) -> str:
    return server.keys("HGETALL", f"{prefix}:live:{device_id}")


async def test_an_older_reading_of_another_process_does_not_replace_the_newest(
    redis_server: RedisServer,
) -> None:
    one, other = shared(redis_server, prefix="older"), shared(redis_server, prefix="older")
    async with running(one):
        new = reading(0, -3.0, soc_kwh=1.0)
        one.update([new])
        await eventually(lambda: "-3.0" in hash_of(redis_server, "older", "ev-1"), what="ev-1")
    other.update([reading(600, -1.0)])
    async with running(other):
        assert other.newest("ev-1") == new
        other.update([reading(0, -5.0, series="ev-2")])
        await eventually(lambda: "-5.0" in hash_of(redis_server, "older", "ev-2"), what="ev-2")
        assert "-3.0" in hash_of(redis_server, "older", "ev-1")


async def test_what_others_wrote_by_mistake_is_no_state(redis_server: RedisServer) -> None:
    for fields in (["start_us", "soon"], ["start_us", "1", "seconds", "nan"], ["x", "y"]):
        redis_server.keys("DEL", "junk:live:ev-1")
        redis_server.keys("HSET", "junk:live:ev-1", *fields)
        live = shared(redis_server, prefix="junk")
        async with running(live):
            assert live.newest("ev-1") is None
            redis_server.keys("XADD", "junk:live", "*", "p", "rubbish")
            redis_server.keys("XADD", "junk:live", "*", "q", "rubbish")
            live.update([reading(0)])
            await eventually(lambda: "power_kw" in hash_of(redis_server, "junk", "ev-1"),
                             what="ev-1")  # fmt: skip


async def test_meters_are_not_shared(redis_server: RedisServer) -> None:
    live = shared(redis_server, prefix="meters")
    async with running(live):
        live.update([reading(0, series="meter-1"), reading(0)])
        await eventually(lambda: hash_of(redis_server, "meters", "ev-1").strip() != "", what="ev-1")
        assert hash_of(redis_server, "meters", "meter-1").strip() == ""


async def test_devices_are_heard_without_redis_and_shared_once_it_is_back() -> None:
    shown: list[bool] = []
    with redis() as server:
        one, other = shared(server, prefix="away", shown=shown), shared(server, prefix="away")
        async with running(one, other):
            first = reading(30, -1.0)
            one.update([first])
            await eventually(lambda: other.newest("ev-1") == first, what="the first")
            await asyncio.to_thread(server.kill)
            second = reading(0, -2.0, series="ev-2")
            one.update([second])
            assert one.newest("ev-2") == second
            await eventually(lambda: True in shown, what="the outage to be shown")
            await asyncio.to_thread(server.start)
            await eventually(lambda: other.newest("ev-2") == second, seconds=20, what="the second")
            await eventually(lambda: "-1.0" in hash_of(server, "away", "ev-1"), what="the first")
            await eventually(lambda: shown[-1] is False, seconds=20, what="the recovery")


async def test_a_start_without_redis_is_no_failure() -> None:
    shown: list[bool] = []
    with redis() as server:
        server.kill()
        live = shared(server, shown=shown)
        await live.load()
        assert shown == [True]
        live.update([reading(0)])
        assert live.stale() == ["ev-2"]
        await live.close()
