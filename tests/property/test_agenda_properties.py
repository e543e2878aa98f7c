"""What is due by the heaps is what a look at every setpoint would find."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.stages.dispatch.agenda import Agenda
from gateway.stages.dispatch.held import Held
from gateway.store.setpoints import SetpointState
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.intervals import instant
from marketplace_core.units import Kw

START = instant("2026-11-25T12:00:00Z")
_STATES = list(SetpointState)
steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "shorten", "busy", "answered", "retry", "remove", "pass"]),
        st.integers(0, 7), st.integers(0, 30), st.sampled_from(_STATES),
    ),
    max_size=60,
)  # fmt: skip


def at(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


def held(number: int, begin: int, state: SetpointState) -> Held:
    device = f"dev-{number % 3}"
    setpoint = Setpoint(
        id=f"spt_{number}", order_id="ord", revision=number, device_id=device, power_kw=Kw(1.0),
        valid_from=at(begin), valid_until=at(begin + 10), lease_s=600.0,
    )  # fmt: skip
    profile = DeviceProfile(
        device_id=device, protocol="mqtt", min_kw=Kw(-7.0), max_kw=Kw(7.0),
        lease=LeaseKind.TIME_TO_LIVE, lease_s=600.0,
    )  # fmt: skip
    return Held(setpoint, profile, state, START, retry_at=float(begin))


def wants(each: Held, now: datetime, monotonic: float) -> bool:
    return each.over(now) or each.due(now) or each.to_refresh(monotonic) or each.to_retry(monotonic)


class Play:
    """One agenda beside a plain list of everything that it should hold."""

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.here: dict[int, Held] = {}
        self.minute = 0

    def step(self, what: str, number: int, minutes: int, state: SetpointState) -> None:
        each = self.here.get(number)
        if what == "add" and each is None:
            self.here[number] = held(number, self.minute + minutes, state)
            self.agenda.add(self.here[number])
        elif what == "pass":
            self.minute += minutes
            self.look()
        elif each is not None:
            self.change(each, what, number, minutes, state)

    def change(
        self, each: Held, what: str, number: int, minutes: int, state: SetpointState
    ) -> None:
        if what == "shorten":
            until = min(each.setpoint.valid_until, at(self.minute + minutes))
            each.setpoint = msgspec.structs.replace(each.setpoint, valid_until=until)
        elif what == "busy":
            each.work = object()
        elif what == "answered":
            each.work, each.state, each.retry_at = None, state, float(self.minute + minutes)
        elif what == "retry":
            each.retry_at = float(self.minute + minutes)
        else:
            del self.here[number]
            self.agenda.remove(each)
        self.agenda.look(each)

    def look(self) -> None:
        now, monotonic = at(self.minute), float(self.minute)
        found = [each for each in self.agenda.due(now, monotonic) if wants(each, now, monotonic)]
        expected = [each for each in self.here.values() if wants(each, now, monotonic)]
        assert sorted(each.number for each in expected) == [each.number for each in found]
        for each in self.here.values():
            self.agenda.look(each)


@given(steps)
def test_the_agenda_finds_what_a_look_at_every_setpoint_would(
    played: list[tuple[str, int, int, SetpointState]],
) -> None:
    play = Play()
    for each in played:
        play.step(*each)
    play.minute += 100
    play.look()


@given(steps)
def test_nobody_sleeps_past_what_is_due(
    played: list[tuple[str, int, int, SetpointState]],
) -> None:
    play = Play()
    for each in played:
        play.step(*each)
    idle = [each for each in play.here.values() if not each.busy]
    for each in idle:
        assert play.agenda.next_market is not None
        assert play.agenda.next_market <= each.next_market
        if each.next_wall is not None:
            assert play.agenda.next_wall is not None
            assert play.agenda.next_wall <= each.next_wall


def test_a_setpoint_that_is_given_up_is_in_nobodys_way() -> None:
    agenda, one, two = (
        Agenda(),
        held(0, 0, SetpointState.PLANNED),
        held(3, 0, SetpointState.APPLIED),
    )
    agenda.add(one)
    agenda.add(two)
    agenda.remove(one)
    assert list(agenda.of_device("dev-0")) == [two]
    agenda.remove(two)
    assert not agenda.of_device("dev-0")
    assert agenda.due(at(60), 60.0) == []
