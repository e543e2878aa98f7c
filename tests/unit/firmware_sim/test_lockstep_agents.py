"""The agents of the lockstep: what devices answer, and what of their minutes gets through."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from adapters.mqtt.wire import WireError, decode_status, decode_telemetry, split_topic
from firmware_sim.agents import Asked
from firmware_sim.lockstep import Lockstep, micros
from firmware_sim.planning import Planned, Request, plan
from firmware_sim.plant import Plant
from firmware_sim.world import Fault
from marketplace_core.errors import RejectedError
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading
from tests.harness.days import DATA

MINUTE = timedelta(minutes=1)
Frame = dict[str, Any]


class Bench:
    """A small day in lockstep, with faults of the test's choice."""

    def __init__(self, planned: Planned, faults: Sequence[Fault] = ()) -> None:
        self.scenario = planned.scenario
        world = msgspec.structs.replace(planned.world, faults=tuple(faults))
        self.truth: list[Reading] = []
        plant = Plant(planned.scenario, world, DATA)
        self.lockstep = Lockstep(planned.scenario, world, plant, self.truth.extend)
        self.at = planned.scenario.market.sim_start

    def step(self, minutes: int = 1, *, confirm: bool = True) -> list[Frame]:
        frames: list[Frame] = []
        for _ in range(minutes):
            self.at += MINUTE
            got = self.lockstep.step(self.at)["frames"]
            frames += got
            for device, payload in telemetry(got) if confirm else ():
                sent = decode_telemetry(payload)
                through = sent.readings[-1].sequence
                self.lockstep.stored(device, sent.boot, through)
        return frames

    def set(self, device: str, kw: float, **fields: Any) -> Frame:
        return self.lockstep.set(Asked(**{
            "device": device, "id": "sp_1", "order_id": "ord_1", "revision": 1, "power_kw": kw,
            "valid_from": self.at, "valid_until": self.at + timedelta(hours=2),
            "lease_s": 1800.0, **fields,
        }))  # fmt: skip

    def power(self, device: str) -> list[float]:
        return [one.power_kw for one in self.truth if one.series == device]

    def fault(self, device: str, kind: FlagKind, after: int, lasts: int, *moments: int) -> Fault:
        start = self.scenario.market.sim_start
        return Fault(
            device=device, kind=kind, at=start + after * MINUTE,
            until=start + (after + lasts) * MINUTE,
            moments=tuple(start + moment * MINUTE for moment in moments),
        )  # fmt: skip


def telemetry(frames: Sequence[Frame]) -> list[tuple[str, bytes]]:
    """Device and payload of telemetry that can be read."""
    found = []
    for frame in frames:
        if frame["kind"] == "mqtt":
            _, device, kind = split_topic(frame["topic"])
            if kind == "telemetry":
                try:
                    decode_telemetry(frame["payload"])
                except WireError:
                    continue
                found.append((device, frame["payload"]))
    return found


def of(frames: Sequence[Frame], device: str) -> list[Frame]:
    return [
        frame
        for frame in frames
        if frame.get("device") == device or f"/{device}/" in frame.get("topic", "")
    ]


@pytest.fixture(scope="module")
def planned() -> Planned:
    return plan(Request(seed=1, homes=2, chargers=6, sites=1), DATA)


@pytest.fixture
def bench(planned: Planned) -> Bench:
    return Bench(planned)


def with_fault(planned: Planned, *fault: Any) -> Bench:
    return Bench(planned, [Bench(planned).fault(*fault)])


def test_hello_names_every_device_and_the_span_of_the_day(bench: Bench) -> None:
    hello = bench.lockstep.hello()
    market = bench.scenario.market
    assert hello == {
        "version": 1, "start_us": micros(market.sim_start), "end_us": micros(market.sim_end),
        "devices": bench.scenario.protocols(),
    }  # fmt: skip


def test_a_minute_brings_every_device_in_a_fixed_order(bench: Bench) -> None:
    bench.step()
    frames = bench.step()
    order = [
        frame.get("device") or split_topic(frame["topic"])[1]
        for frame in frames
    ]  # fmt: skip
    assert order == list(bench.scenario.protocols())
    sample = frames[0]
    assert sample["start_us"] == micros(bench.scenario.market.sim_start + MINUTE)
    assert (sample["seconds"], sample["protocol"]) == (60.0, "modbus")
    assert {reading.series for reading in bench.truth} == set(order)


def test_chargers_say_that_they_are_there_first_and_then_what_they_measure(bench: Bench) -> None:
    device = bench.scenario.chargers[0].id
    first, second = of(bench.step(), device)
    assert split_topic(first["topic"])[2] == "status"
    assert decode_status(first["payload"]).online
    reading = decode_telemetry(second["payload"]).readings[0]
    assert reading.start_us == micros(bench.scenario.market.sim_start)
    assert reading.power_w == pytest.approx(1000 * bench.power(device)[0])


def test_plugged_cars_tell_what_they_want_and_when_they_leave(bench: Bench) -> None:
    readings = [
        reading
        for _, payload in telemetry(bench.step(240))
        for reading in decode_telemetry(payload).readings
    ]
    plugged = [reading for reading in readings if reading.wanted_wh is not None]
    assert plugged
    assert all(reading.leaves_us and reading.leaves_us > reading.start_us for reading in plugged)
    assert all((reading.leaves_us is None) == (reading.wanted_wh is None) for reading in readings)


def test_a_setpoint_is_applied_read_back_and_obeyed(bench: Bench) -> None:
    battery = bench.scenario.homes[0].battery
    answer = bench.set(battery, -1.5)
    assert answer == {
        "status": "applied", "reason": "", "read_back_kw": -1.5, "lease_s": 1800.0,
    }  # fmt: skip
    bench.step(2)
    assert bench.power(battery)[1] == pytest.approx(-1.5, abs=0.15)
    assert bench.lockstep.query(battery) == {
        "active": True, "setpoint_id": None, "setpoint_kw": -1.5, "lease_s": 1680.0,
    }  # fmt: skip


def test_silence_ends_a_setpoint_and_a_refresh_prolongs_it(bench: Bench) -> None:
    battery = bench.scenario.homes[0].battery
    bench.set(battery, -0.5, lease_s=300.0)
    bench.step(4)
    bench.set(battery, -0.5, lease_s=300.0)
    bench.step(8)
    moving = [kw < -0.3 for kw in bench.power(battery)]
    assert moving == [True] * 9 + [False] * 3
    assert bench.lockstep.query(battery)["active"] is False


def test_a_setpoint_begins_and_ends_when_its_order_does(bench: Bench) -> None:
    battery = bench.scenario.homes[0].battery
    answer = bench.set(
        battery, -0.5, valid_from=bench.at + 3 * MINUTE, valid_until=bench.at + 6 * MINUTE
    )
    assert answer["status"] == "applied"
    bench.step(8)
    assert [kw < -0.3 for kw in bench.power(battery)] == [False] * 3 + [True] * 3 + [False] * 2


def test_an_older_revision_and_a_time_that_is_over_are_refused(bench: Bench) -> None:
    battery = bench.scenario.homes[0].battery
    bench.set(battery, -0.5, revision=3)
    old = bench.set(battery, -2.0, revision=2)
    assert (old["status"], old["reason"]) == ("refused", "revision 3 is in force")
    late = bench.set(battery, -2.0, revision=3, valid_until=bench.at)
    assert late["status"] == "refused"
    bench.step(2)
    assert bench.power(battery)[1] == pytest.approx(-0.5, abs=0.15)


def test_a_newer_plan_takes_the_place_of_what_an_older_one_had_planned(bench: Bench) -> None:
    battery = bench.scenario.homes[0].battery
    bench.set(battery, -2.0, revision=1, id="sp_old", valid_from=bench.at + 2 * MINUTE)
    bench.set(battery, -0.5, revision=2, id="sp_new")
    bench.step(4)
    assert bench.power(battery)[1:] == pytest.approx([-0.5] * 3, abs=0.15)


def test_a_release_returns_a_device_to_itself(bench: Bench) -> None:
    charger = bench.scenario.chargers[0].id
    bench.set(charger, -0.0)
    assert bench.lockstep.release(charger, "ord_1", 1)["status"] == "applied"
    assert bench.lockstep.query(charger) == {
        "active": False, "setpoint_id": None, "setpoint_kw": None, "lease_s": None,
    }  # fmt: skip


def test_a_charger_names_the_setpoint_that_is_in_force(bench: Bench) -> None:
    charger = bench.scenario.chargers[0].id
    bench.set(charger, -3.0)
    assert bench.lockstep.query(charger)["setpoint_id"] == "sp_1"


def test_a_meter_cannot_be_driven(bench: Bench) -> None:
    answer = bench.set(bench.scenario.homes[0].meter, 1.0)
    assert answer["status"] == "refused"


def test_a_silent_unit_is_unreachable_and_says_nothing(planned: Planned) -> None:
    battery = planned.scenario.homes[0].battery
    bench = with_fault(planned, battery, FlagKind.TIMES_OUT, 2, 3)
    bench.set(battery, -0.5)
    bench.step(2)
    assert bench.set(battery, -0.5)["status"] == "unreachable"
    assert bench.lockstep.query(battery)["status"] == "unreachable"
    assert bench.lockstep.release(battery, "ord_1", 1)["status"] == "unreachable"
    kinds = [frame["kind"] for frame in of(bench.step(4), battery)]
    assert kinds == ["silent"] * 3 + ["sample"]
    assert all(kw < -0.3 for kw in bench.power(battery))
    assert bench.lockstep.query(battery)["active"]


def test_a_charger_that_loses_its_link_comes_back_with_everything(planned: Planned) -> None:
    charger = planned.scenario.chargers[0].id
    bench = with_fault(planned, charger, FlagKind.OFFLINE, 3, 20)
    before = of(bench.step(3), charger)
    assert bench.set(charger, -3.0)["status"] == "unreachable"
    away = of(bench.step(20), charger)
    assert [split_topic(frame["topic"])[2] for frame in away] == ["status"]
    assert not decode_status(away[0]["payload"]).online
    back = of(bench.step(), charger)
    assert [split_topic(frame["topic"])[2] for frame in back] == ["status", "telemetry"]
    assert decode_status(back[0]["payload"]).online
    sequences = [r.sequence for _, p in telemetry([*before, *back]) for r in decode_telemetry(p).readings]  # fmt: skip  # noqa: E501
    # the last one before went out again: its confirmation met a lost link
    assert sequences == [0, 1, 2, *range(2, 24)]
    assert bench.set(charger, -3.0)["status"] == "applied"


def test_a_site_that_opts_out_says_so_and_joins_what_it_is_not_out_of(planned: Planned) -> None:
    site = planned.scenario.sites[0].id
    bench = with_fault(planned, site, FlagKind.OPTS_OUT, 300, 60)
    answer = bench.set(site, -10.0, valid_until=bench.at + timedelta(hours=8))
    assert answer["status"] == "refused"
    assert answer["reason"].startswith("optOut")
    joined = bench.set(site, 0.0)
    assert joined == {"status": "applied", "reason": "", "read_back_kw": None, "lease_s": None}
    bench.step(3)
    assert bench.power(site) == [0.0] * 3


def test_a_backend_shares_what_it_accepted(bench: Bench) -> None:
    fleet = bench.scenario.fleets[0].id
    answer = bench.set(fleet, 0.0)
    assert answer["status"] == "applied"
    frames = of(bench.step(2), fleet)
    assert [(f["protocol"], f["seconds"]) for f in frames] == [("webhook", 60.0)] * 2
    assert bench.lockstep.query(fleet)["setpoint_id"] == "sp_1"


def test_malformed_messages_are_of_three_kinds_and_cannot_be_read(planned: Planned) -> None:
    charger = planned.scenario.chargers[0].id
    bench = with_fault(planned, charger, FlagKind.MALFORMED, 1, 6, 1, 3, 5)
    unreadable = []
    for frame in of(bench.step(8), charger):
        if split_topic(frame["topic"])[2] == "telemetry":
            try:
                decode_telemetry(frame["payload"])
            except WireError as error:
                unreadable.append(str(error))
    assert len(unreadable) == len(set(unreadable)) == 3


def test_a_replay_lies_below_what_the_charger_had_already_dropped(planned: Planned) -> None:
    charger = planned.scenario.chargers[0].id
    bench = with_fault(planned, charger, FlagKind.REPLAYS, 10, 6, 10, 14)
    sent = [decode_telemetry(payload) for _, payload in telemetry(of(bench.step(20), charger))]
    high, told, replayed = -1, 0, []
    for one in sent:
        if one.readings[-1].sequence <= high:
            assert one.oldest is not None
            assert one.oldest < told
            replayed.append(one)
        high = max(high, one.readings[-1].sequence)
        told = max(told, one.oldest or 0)
    assert len(replayed) == 2
    assert high == 19


def test_a_charger_that_nobody_confirmed_has_nothing_to_replay_yet(planned: Planned) -> None:
    charger = planned.scenario.chargers[0].id
    bench = with_fault(planned, charger, FlagKind.REPLAYS, 2, 6, 2, 5)
    sequences = [
        decode_telemetry(payload).readings[-1].sequence
        for _, payload in telemetry(of(bench.step(4, confirm=False), charger))
    ]
    assert sequences == [0, 1, 2, 3]


def test_what_nobody_confirms_comes_again_after_five_minutes(bench: Bench) -> None:
    charger = bench.scenario.chargers[0].id
    seen = [
        [reading.sequence for reading in decode_telemetry(payload).readings]
        for _, payload in telemetry(of(bench.step(8, confirm=False), charger))
    ]
    assert seen[:5] == [[0], [1], [2], [3], [4]]
    again = [numbers for numbers in seen[5:] if numbers[0] == 0]
    assert len(again) == 1


def test_a_confirmation_of_another_boot_is_ignored(bench: Bench) -> None:
    charger = bench.scenario.chargers[0].id
    bench.step(2, confirm=False)
    bench.lockstep.stored(charger, 1, 99)
    assert any(
        decode_telemetry(payload).readings[0].sequence == 0
        for _, payload in telemetry(of(bench.step(5, confirm=False), charger))
    )


def test_while_the_uplink_is_down_telemetry_waits_in_order_and_nobody_is_reached(
    planned: Planned,
) -> None:
    charger = planned.scenario.chargers[0].id
    bench = with_fault(planned, charger, FlagKind.OFFLINE, 3, 2)
    bench.step(1)
    assert bench.lockstep.link(up=False) == {}
    frames = bench.step(4)
    assert [frame for frame in frames if frame["kind"] == "mqtt"] == []
    assert any(frame["kind"] == "sample" for frame in frames)
    for answer in (
        bench.set(charger, -3.0),
        bench.lockstep.query(charger),
        bench.lockstep.release(charger, "ord_1", 1),
    ):
        assert answer["status"] == "unreachable"
    bench.lockstep.link(up=True)
    released = [f for f in bench.step(1) if f["kind"] == "mqtt"]
    numbers = [
        reading.sequence
        for _, payload in telemetry(of(released, charger))
        for reading in decode_telemetry(payload).readings
    ]
    assert sorted(set(numbers)) == list(range(1, 6))
    presence = [f for f in of(released, charger) if split_topic(f["topic"])[2] == "status"]
    assert decode_status(presence[-1]["payload"]).online


def test_a_device_obeys_through_a_lost_link_until_its_lease_is_over(bench: Bench) -> None:
    fleet = next(one.id for one in bench.scenario.chargers)
    bench.set(fleet, 0.0, lease_s=180.0)
    bench.lockstep.link(up=False)
    bench.step(5)
    assert bench.power(fleet)[:3] == [0.0] * 3


@pytest.mark.parametrize("seconds", [-60, 30])
def test_a_step_goes_forward_by_whole_minutes(bench: Bench, seconds: int) -> None:
    bench.step(1)
    with pytest.raises(RejectedError) as caught:
        bench.lockstep.step(bench.at + timedelta(seconds=seconds))
    assert (caught.value.field, caught.value.rule) == (
        "until_us", "a step goes forward by whole minutes",
    )  # fmt: skip


def test_a_device_that_is_not_there_is_named(bench: Bench) -> None:
    with pytest.raises(RejectedError, match="dev_nobody"):
        bench.lockstep.query("dev_nobody")
    with pytest.raises(RejectedError, match="does not speak MQTT"):
        bench.lockstep.stored(bench.scenario.homes[0].battery, 1, 1)
