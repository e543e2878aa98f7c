"""The simulated device's control and the gateway's view of sequences, without a wire."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from adapters.mqtt.sequence import DeviceSequence
from firmware_sim.servers.mqtt_control import Control


class Bench:
    """A device's control on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[Any] = []
        self.control = Control(
            "ev-1", monotonic=lambda: self.now, log=self.log.append, accepts=lambda _kw: ""
        )

    def send(self, **changes: object) -> dict[str, Any]:
        command = {
            "kind": "set", "id": "spt_1", "order_id": "ord_1", "revision": 0, "power_w": -2000.0,
            "lease_s": 30.0, "ttl_s": 5.0, "starts_in_s": 0.0, "valid_for_s": 600.0,
        }  # fmt: skip
        return self.control.answer({**command, **changes}, arrived=self.now)

    def effects(self) -> list[str]:
        return [entry["effect"] for entry in self.log if "effect" in entry]


def test_lease_that_nobody_refreshes_ends_on_the_device() -> None:
    bench = Bench()
    assert bench.send()["status"] == "applied"
    bench.now = 29.9
    assert bench.control.commanded_kw() == -2.0
    assert bench.send()["lease_s"] == 30.0  # a refresh
    bench.now = 59.8
    assert bench.control.commanded_kw() == -2.0
    bench.now = 59.91
    assert bench.control.commanded_kw() is None
    assert bench.effects() == ["set", "fallback"]


def test_validity_ends_a_setpoint_whatever_its_lease() -> None:
    bench = Bench()
    bench.send(valid_for_s=10.0)
    bench.now = 10.0
    assert bench.control.commanded_kw() is None
    assert bench.effects() == ["set", "ended"]


def test_command_that_waited_beyond_its_time_to_live_is_dropped() -> None:
    bench = Bench()
    bench.now = 5.1
    command = {
        "kind": "set", "id": "spt_1", "order_id": "ord_1", "revision": 0, "power_w": -2000.0,
        "lease_s": 30.0, "ttl_s": 5.0,
    }  # fmt: skip
    assert bench.control.answer(command, arrived=0.0)["status"] == "refused"
    assert bench.control.commanded_kw() is None
    assert bench.control.answer(command, arrived=0.2)["status"] == "applied"


def test_setpoint_sent_ahead_takes_effect_when_it_starts() -> None:
    bench = Bench()
    bench.send(id="spt_now", power_w=-5000.0)
    answer = bench.send(id="spt_next", starts_in_s=20.0)
    assert (answer["status"], answer["setpoint_id"]) == ("applied", "spt_now")
    bench.now = 19.9
    assert bench.control.commanded_kw() == -5.0
    bench.now = 20.0
    assert bench.control.commanded_kw() == -2.0
    bench.now = 49.9
    assert bench.control.commanded_kw() == -2.0  # the lease counts from the start
    bench.now = 50.1
    assert bench.control.commanded_kw() is None


def test_release_returns_to_the_fallback_and_is_harmless_again() -> None:
    bench = Bench()
    bench.send()
    for _ in range(2):
        answer = bench.send(kind="release", id="release-1")
        assert (answer["status"], answer["setpoint_id"]) == ("applied", None)
    assert bench.effects() == ["set", "release"]


def test_release_of_an_older_revision_is_stale() -> None:
    bench = Bench()
    bench.send(revision=2)
    assert bench.send(kind="release", id="release-1", revision=1)["status"] == "stale"
    assert bench.control.commanded_kw() == -2.0


def test_holes_wait_for_a_device_that_still_keeps_them() -> None:
    known = DeviceSequence()
    assert known.take(1, [0, 1], oldest=0) == 1
    assert known.take(1, [4, 5], oldest=2) == 1  # 2 and 3 are on their way or come again
    assert known.gaps == 0
    assert known.take(1, [2, 3], oldest=2) == 5
    assert known.take(1, [2, 3, 4], oldest=2) == 5  # a replay
    assert known.gaps == 0


def test_holes_below_what_a_device_keeps_are_gaps() -> None:
    known = DeviceSequence()
    assert known.take(1, [0], oldest=0) == 0
    assert known.take(1, [7, 8], oldest=5) == 4
    assert known.gaps == 4
    assert known.take(1, [5, 6], oldest=5) == 8
    assert known.gaps == 4


def test_device_that_keeps_nothing_loses_every_hole_at_once() -> None:
    known = DeviceSequence()
    assert known.take(1, [10, 11], oldest=None) == 11  # what came before us is not ours
    assert known.take(1, [14], oldest=None) == 14
    assert known.gaps == 2


def test_new_boot_counts_from_its_own_start() -> None:
    known = DeviceSequence()
    known.take(1, [0, 1, 2], oldest=0)
    assert known.take(2, [0], oldest=0) == 0
    assert known.take(1, [3], oldest=3) == 3
    assert known.gaps == 0


@given(
    st.integers(1, 40),
    st.lists(st.lists(st.integers(0, 39), max_size=8), max_size=12),
)
def test_stored_never_skips_what_was_not_taken(count: int, messages: list[list[int]]) -> None:
    known, taken = DeviceSequence(), set[int]()
    for message in [*messages, list(range(count))]:
        taken.update(message)
        through = known.take(1, message, oldest=0)
        assert set(range(through + 1)) <= taken
        assert through + 1 not in taken
    assert known.gaps == 0


def test_a_hole_that_the_device_still_keeps_is_never_confirmed() -> None:
    known = DeviceSequence()
    known.take(1, [0], oldest=0)
    for start in range(2, 12_002, 100):
        assert known.take(1, list(range(start, start + 100)), oldest=1) == 0
    assert known.gaps == 0
    assert known.take(1, [1], oldest=1) == 4_097  # what was too far ahead is asked for again
    assert known.take(1, list(range(4_098, 12_002)), oldest=4_098) == 12_001
    assert known.gaps == 0
