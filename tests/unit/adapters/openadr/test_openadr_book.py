from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from adapters.openadr.book import EventBook
from adapters.openadr.outcome import released, settled
from adapters.openadr.wire import Answer
from marketplace_core.dispatch.setpoint import (
    Applied,
    Refused,
    Setpoint,
    Unconfirmed,
    Unreachable,
)
from marketplace_core.units import Kw

NOW = datetime(2018, 7, 10, 20, 0, tzinfo=UTC)
WALL = datetime(2026, 1, 1, tzinfo=UTC)


def setpoint(number: int = 1, *, revision: int = 0, hours: float = 1.0) -> Setpoint:
    return Setpoint(
        id=f"sp_{number}",
        order_id="ord_1",
        revision=revision,
        device_id="dev_1",
        power_kw=Kw(-10.0),
        valid_from=NOW,
        valid_until=NOW + timedelta(hours=hours),
        lease_s=3600.0,
    )


def offered(book: EventBook, one: Setpoint) -> str:
    return book.offer(one, "ven-1", created=WALL).id


def test_an_answer_counts_for_its_ven_and_modification_only() -> None:
    book = EventBook()
    event_id = offered(book, setpoint(1))
    book.delivered(book.records())
    offered(book, setpoint(2, revision=1))
    assert not book.answer("ven-1", Answer(event_id, 0, True, "200"))
    assert not book.answer("ven-2", Answer(event_id, 1, True, "200"))
    assert not book.answer("ven-1", Answer("evt-x", 1, True, "200"))
    assert book.records()[0].opt_in is None
    assert book.answer("ven-1", Answer(event_id, 1, True, "200"))
    assert book.records()[0].accepted


@pytest.mark.parametrize(
    ("opt_in", "code", "reason"),
    [(True, "460", "the VEN refused"), (False, "200", "the VEN opted out")],
)
def test_a_code_other_than_success_is_a_refusal(opt_in: bool, code: str, reason: str) -> None:  # noqa: FBT001 - a parameter of the test
    book, one = EventBook(), setpoint()
    book.answer("ven-1", Answer(offered(book, one), 0, opt_in, code))
    outcome = settled(one, book.records()[0], NOW, overdue=False)
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.evidence) == (reason, f"response code {code}")


def test_silence_after_a_restart_is_no_proof_that_nothing_was_sent() -> None:
    book, one = EventBook(), setpoint()
    book.restore([], [one], ven_of={"dev_1": "ven-1"}, now=NOW, created=WALL)
    (event,) = book.records()
    assert isinstance(settled(one, event, NOW, overdue=True), Unconfirmed)
    book.withdraw(event)
    assert book.records() == (event,)


def test_what_is_over_or_has_no_ven_is_not_restored() -> None:
    told, book = EventBook(), EventBook()
    offered(told, setpoint(hours=0.5))
    later = NOW + timedelta(minutes=40)
    book.restore(
        told.records(), [setpoint(hours=0.5)], ven_of={"dev_1": "ven-1"}, now=later, created=WALL
    )
    assert book.records() == ()
    book.restore(told.records(), [setpoint()], ven_of={"dev_2": "v"}, now=NOW, created=WALL)
    assert book.records() == ()


def test_an_older_plan_does_not_come_back_with_a_restart() -> None:
    told, book = EventBook(), EventBook()
    offered(told, setpoint(2, revision=2))
    book.restore(
        told.records(),
        [setpoint(1, revision=1), setpoint(2, revision=2)],
        ven_of={"dev_1": "ven-1"},
        now=NOW,
        created=WALL,
    )
    assert [event.setpoint.id for event in book.records()] == ["sp_2"]


def test_withdrawing_brings_back_what_the_ven_holds() -> None:
    book = EventBook()
    offered(book, setpoint(1))
    book.delivered(book.records())
    (held,) = book.records()
    offered(book, setpoint(2, revision=1))
    offered(book, setpoint(3, revision=2))
    (event,) = book.records()
    assert event.modification == 2
    outcome = settled(setpoint(3, revision=2), event, NOW, overdue=True)
    assert isinstance(outcome, Unreachable)
    book.withdraw(event)
    assert book.records() == (held,)
    outcome = settled(setpoint(3, revision=2), held, NOW, overdue=True)
    assert isinstance(outcome, Unreachable)


def test_a_delivered_event_cannot_be_withdrawn() -> None:
    book = EventBook()
    offered(book, setpoint())
    book.delivered(book.records())
    (event,) = book.records()
    book.withdraw(event)
    assert book.records() == (event,)


def test_two_setpoints_of_one_revision_supersede_each_other_visibly() -> None:
    book = EventBook()
    offered(book, setpoint(1))
    offered(book, setpoint(2))
    outcome = settled(setpoint(1), book.records()[0], NOW, overdue=False)
    assert isinstance(outcome, Refused)
    assert "sp_2" in outcome.reason


def test_a_cancellation_waits_for_its_acknowledgement() -> None:
    book, one = EventBook(), setpoint()
    event_id = offered(book, one)
    book.answer("ven-1", Answer(event_id, 0, True, "200"))
    cancelled = book.cancel(book.records()[0])
    assert isinstance(settled(one, cancelled, NOW, overdue=False), Refused)
    assert released("dev_1", cancelled, NOW, overdue=False) is None
    assert isinstance(released("dev_1", cancelled, NOW, overdue=True), Unreachable)
    book.delivered([cancelled])
    assert isinstance(released("dev_1", book.records()[0], NOW, overdue=True), Unconfirmed)
    assert book.answer("ven-1", Answer(event_id, 1, False, "200"))
    assert isinstance(released("dev_1", book.records()[0], NOW, overdue=True), Applied)


def test_what_is_over_is_forgotten() -> None:
    book, one = EventBook(), setpoint()
    offered(book, one)
    assert len(book.of("ven-1", NOW)) == 1
    assert book.of("ven-2", NOW) == []
    later = NOW + timedelta(hours=1)
    assert book.of("ven-1", later) == []
    book.prune(later)
    assert book.records() == ()
    assert isinstance(settled(one, None, later, overdue=True), Unconfirmed)
