"""Each fault of a scenario, seen in what a device says, and in what the market makes of it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from adapters.mqtt import wire
from firmware_sim.fleet.mqtt_fleet import MqttFleet
from firmware_sim.fleet.virtual import Said
from marketplace_core.dispatch.order import Allocation
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.tracking import FLAG_OF, Progress, Tracked, track
from marketplace_core.units import Direction, Kw
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading
from tests.harness.fleets import EPOCH_US, play, readings, told, unpacked, virtual

COUNT = 40
NAMES = virtual(count=COUNT).population.ids
BATTERY = next(name for name in NAMES if "-bat-" in name)
NUMBER = NAMES.index(BATTERY)
ONLY = f"devices: {{ids: [{BATTERY}]}}"
EPOCH = datetime.fromtimestamp(EPOCH_US / 1e6, UTC)


def played(
    entry: str, until: float, *commands: float, **more: bool
) -> tuple[MqttFleet, list[Said]]:
    """`commands`: times at which the battery is told to give 3 kW."""
    fleet = virtual(f"{entry}, {ONLY}", count=COUNT)
    return fleet, play(fleet, until, commands=[told(at, BATTERY, 3.0) for at in commands], **more)


def ends(reading: wire.WireReading) -> float:
    return (reading.start_us - EPOCH_US) / 1e6 + reading.seconds


def arrivals(said: list[Said]) -> dict[int, float]:
    """When each reading of the battery arrived."""
    return {
        reading.sequence: one.at
        for one in said
        if one.device == BATTERY and one.kind == "telemetry"
        for reading in wire.decode_telemetry(one.payload).readings
    }


def true_kw(fleet: MqttFleet) -> float:
    return float(fleet.core.plant.power_kw[NUMBER])


def progress(said: list[Said], since: float) -> Progress:
    """What the market's tracking makes of the readings of a battery told to give 3 kW."""
    profile = DeviceProfile(
        device_id=BATTERY, protocol="mqtt", min_kw=Kw(-5.0), max_kw=Kw(5.0),
        lease=LeaseKind.TIME_TO_LIVE, lease_s=600.0,
    )  # fmt: skip
    allocation = Allocation(
        device_id=BATTERY, contract_id="ctr_1", share_kw=Kw(3.0), reference_kw=Kw(0.0),
        power_kw=Kw(3.0),
    )  # fmt: skip
    device = Tracked(
        profile=profile, direction=Direction.UP, allocation=allocation,
        since=EPOCH + timedelta(seconds=since), until=EPOCH + timedelta(seconds=600),
    )  # fmt: skip
    for row in readings(said, BATTERY):
        start = EPOCH + timedelta(microseconds=row.start_us - EPOCH_US)
        reading = Reading(series=BATTERY, start=start, seconds=row.seconds,
                          power_kw=Kw(row.power_w / 1000.0))  # fmt: skip
        device = track(device, reading)
    return device.progress


def test_drop_loses_messages_and_no_reading() -> None:
    fleet, said = played("fault: drop, at: 20, until: 60", 130.0)
    rows = readings(said, BATTERY)
    arrived = [at.at for at in said if at.device == BATTERY and at.kind == "telemetry"]
    assert not [at for at in arrived if 21.0 <= at < 60.0]
    assert fleet.dropped_messages >= 3
    assert sorted({row.sequence for row in rows}) == list(range(len({r.sequence for r in rows})))
    assert max(ends(row) for row in rows) > 110.0


def test_drop_loses_a_share_and_answers_too() -> None:
    fleet, said = played("fault: drop, share: 0.5, at: 5, until: 1500", 1_500.0)
    sent = fleet.dropped_messages + sum(one.kind == "telemetry" and one.device == BATTERY
                                        for one in said)  # fmt: skip
    assert 0.4 < fleet.dropped_messages / sent < 0.6
    _, said = played("fault: drop, at: 10, until: 30", 60.0, 20.0, 40.0)
    assert [at for at, _ in unpacked(said, "ack", BATTERY)] == [40.0]


def test_delay_makes_answers_and_telemetry_late() -> None:
    _, calm = played("fault: delay, by: 0, at: 500, until: 600", 100.0, 20.0)
    _, late = played("fault: delay, by: 4.5s, at: 10, until: 60", 100.0, 20.0)
    assert unpacked(late, "ack", BATTERY)[0][0] == 24.5
    before, after = arrivals(calm), arrivals(late)
    delays = {round(after[n] - at, 3) for n, at in before.items() if 12 < at < 60}
    assert delays == {4.5}
    assert {round(after[n] - at, 3) for n, at in before.items() if at > 70} == {0.0}


def test_a_power_that_sticks_is_acknowledged_and_flagged_as_ignoring() -> None:
    fleet, said = played("fault: stick, at: 10, until: 300", 80.0, 20.0)
    assert unpacked(said, "ack", BATTERY)[0][1]["status"] == "applied"
    assert true_kw(fleet) == 0.0
    found = progress(said, since=24.0)
    assert FLAG_OF[found] is FlagKind.IGNORES


def test_a_meter_that_sticks_shows_what_it_showed() -> None:
    fleet, said = played("fault: stick, part: reading, at: 10, until: 70", 120.0, 20.0)
    assert true_kw(fleet) == 3.0, "it does what it is told"
    shown = {row.power_w for row in readings(said, BATTERY) if 20 < ends(row) < 65}
    assert shown == {0.0}
    assert readings(said, BATTERY)[-1].power_w == 3_000.0
    [during] = {progress([one for one in said if one.at < 65], since=24.0)}
    assert FLAG_OF[during] is FlagKind.IGNORES


def test_a_clamp_goes_part_of_the_way_and_is_flagged() -> None:
    fleet, said = played("fault: clamp, share: 0.4, at: 10, until: 300", 80.0, 20.0)
    assert true_kw(fleet) == pytest.approx(1.2)
    assert readings(said, BATTERY)[-1].power_w == pytest.approx(1_200.0)
    assert FLAG_OF[progress(said, since=24.0)] is FlagKind.CLAMPS


def test_a_lie_reports_what_was_commanded_and_its_store_gives_it_away() -> None:
    fleet, said = played("fault: lie, at: 10, until: 300", 80.0, 20.0)
    assert true_kw(fleet) == 0.0
    last = readings(said, BATTERY)[-1]
    assert last.power_w == 3_000.0
    stored = {row.soc_wh for row in readings(said, BATTERY)}
    assert len(stored) == 1, "nothing leaves the battery"
    assert progress(said, since=24.0) is Progress.FOLLOWS, "power alone does not show it"


def test_a_lie_may_be_a_factor() -> None:
    fleet, said = played("fault: lie, factor: 1.5, at: 10, until: 300", 80.0, 20.0)
    assert true_kw(fleet) == 3.0
    assert readings(said, BATTERY)[-1].power_w == 4_500.0


def test_clock_skew_shifts_time_stamps_and_nothing_else() -> None:
    _, calm = played("fault: clock_skew, by: 0, at: 500, until: 501", 100.0)
    _, said = played("fault: clock_skew, by: -120.5, at: 30, until: 70", 100.0)
    pairs = list(zip(readings(calm, BATTERY), readings(said, BATTERY), strict=True))
    shifts = [(right.start_us - told_.start_us, ends(right)) for right, told_ in pairs]
    assert {shift for shift, at in shifts if 32 < at <= 70} == {120_500_000}
    assert {shift for shift, at in shifts if at <= 30 or at > 72} == {0}
    assert [a.power_w for a, _ in pairs] == [b.power_w for _, b in pairs]


def test_replay_sends_again_what_was_dropped_as_stored() -> None:
    _, said = played("fault: replay, every: 20s, at: 60, until: 130", 200.0)
    numbers = [row.sequence for row in readings(said, BATTERY)]
    steps = list(itertools.pairwise(numbers))
    assert sum(after <= before for before, after in steps) == 4
    assert sorted(set(numbers)) == list(range(len(set(numbers))))
    late = [one for one in said if one.at > 140]
    fresh = [row.sequence for row in readings(late, BATTERY)]
    assert fresh == sorted(set(fresh)), "it is over when it ends"


def test_a_reboot_forgets_its_setpoint_and_counts_anew() -> None:
    fleet, said = played("fault: reboot, at: 40, down: 12s", 120.0, 20.0)
    presence = [(at, told_["online"], told_["boot"]) for at, told_ in _statuses(said)]
    assert [(online, boot) for _, online, boot in presence] == [(False, 2), (True, 2)]
    gone, back = presence[0][0], presence[1][0]
    assert gone == pytest.approx(41.0)
    assert 12.0 <= back - gone <= 16.0, "the way down, and the jitter"
    quiet = [one for one in said if one.device == BATTERY and gone < one.at < back]
    assert quiet == []
    assert fleet.commanded_kw(NUMBER) is None
    assert true_kw(fleet) == 0.0
    boots = [wire.decode_telemetry(one.payload) for one in said
             if one.device == BATTERY and one.kind == "telemetry"]  # fmt: skip
    second = [row for told_ in boots if told_.boot == 2 for row in told_.readings]
    assert [row.sequence for row in second] == list(range(len(second)))
    assert ends(second[0]) - second[0].seconds >= 53.0, "while it boots it measures nothing"


@pytest.mark.parametrize("forgets", [False, True])
def test_readings_that_were_not_stored_outlive_a_reboot_or_do_not(*, forgets: bool) -> None:
    entry = f"fault: reboot, at: 40, down: 5, forgets_readings: {str(forgets).lower()}"
    fleet, said = played(entry, 100.0, stores=False)
    after = [wire.decode_telemetry(one.payload) for one in said
             if one.device == BATTERY and one.kind == "telemetry" and one.at > 42]  # fmt: skip
    first_boot = {row.sequence for told_ in after if told_.boot == 1 for row in told_.readings}
    assert first_boot == (set() if forgets else {0, 1, 2, 3})
    fleet.stored(NUMBER, {"boot": 1, "through": 3})
    assert fleet.kept(NUMBER) == sum(told_.boot == 2 for told_ in after) or forgets


def test_a_storm_takes_everybody_and_jitter_brings_them_back() -> None:
    fleet = virtual("fault: reconnect_storm, at: 50", count=COUNT)
    said = play(fleet, 80.0)
    statuses = [one for one in said if one.kind == "status"]
    gone = [one.at for one in statuses if not wire.decode_status(one.payload).online]
    back = [one.at for one in statuses if wire.decode_status(one.payload).online]
    assert gone == [51.0] * COUNT
    assert len(back) == COUNT
    assert len(set(back)) >= 2
    assert max(back) <= 51.0 + 2.0 + 1.0
    for name in NAMES:
        numbers = [row.sequence for row in readings(said, name)]
        assert numbers == list(range(len(numbers))), "nothing was lost"


def _statuses(said: list[Said]) -> list[tuple[float, dict[str, object]]]:
    found = [one for one in said if one.kind == "status" and one.device == BATTERY]
    decoded = [(one.at, wire.decode_status(one.payload)) for one in found]
    return [(at, {"online": told_.online, "boot": told_.boot}) for at, told_ in decoded]
