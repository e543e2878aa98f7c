from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from marketplace_core.dispatch.setpoint import Applied, Refused


def status(ven: Any) -> list[str]:
    return [event.status for event in ven.events]


async def test_a_restarted_vtn_keeps_the_event_and_the_answer(street: Any) -> None:
    seen: list[str] = []

    def decide(event: Any) -> bool:
        seen.append(f"{event.status} {event.modification}")
        return True

    setpoint = street.setpoint()
    async with street.serving() as first:
        port = first.port
        async with street.ven(port, decide) as ven:
            await street.until(lambda: ven.registrations)
            assert isinstance((await street.issue(first, setpoint))[0], Applied)
    async with street.ven(port, decide) as ven, street.serving(port=port) as stale:
        # nothing was handed to restore: the event should not stand, and the VEN is told so
        await street.until(lambda: status(ven) == ["cancelled"])
        assert not (await stale.read_back("dev_site")).active
    assert seen == ["active 0", "cancelled 1"]


async def test_the_ven_sees_no_implied_cancel_while_the_vtn_restarts(street: Any) -> None:
    asked: list[Any] = []

    def decide(event: Any) -> bool:
        asked.append(event)
        return True

    setpoint = street.setpoint()
    commanded = []
    async with street.serving() as first:
        port = first.port
    async with street.ven(port, decide) as ven:
        async with street.serving(port=port) as first:
            await street.until(lambda: ven.registrations)
            await street.issue(first, setpoint)
            await street.until(lambda: ven.commanded_kw(datetime.now(UTC)) == -80.0)
        async with street.serving(port=port, restore=None) as held:
            await street.until(lambda: held.counters.get("refused_held", 0) >= 3)
            commanded.append(ven.commanded_kw(datetime.now(UTC)))
            held.restore([setpoint])
            await street.until(lambda: held.connected("dev_site"))
            read = await held.read_back("dev_site")
            assert (read.active, read.setpoint_id) == (True, "sp_1")
            (outcome,) = await street.issue(held, setpoint)
            assert isinstance(outcome, Applied)
            commanded.append(ven.commanded_kw(datetime.now(UTC)))
    assert commanded == [-80.0, -80.0]
    assert len(asked) == 1
    assert ven.registrations == 1


async def test_a_ven_that_restarts_with_the_vtn_gets_the_full_set(street: Any) -> None:
    setpoint = street.setpoint()
    async with street.serving() as first, street.ven(first.port) as ven:
        await street.until(lambda: ven.registrations)
        await street.issue(first, setpoint)
        registration = [first._service.registration(v) for v in first._vens.values()]
    async with street.serving(restore=[setpoint]) as second, street.ven(second.port) as again:
        await street.until(lambda: again.commanded_kw(datetime.now(UTC)) == -80.0)
        assert [second._service.registration(v) for v in second._vens.values()] == registration


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"vens": 3}'])
async def test_without_a_state_file_the_ven_registers_again_and_keeps_its_event(
    street: Any, content: bytes | None
) -> None:
    setpoint = street.setpoint()
    async with street.serving() as first:
        port = first.port
    path = street.folder / "openadr.json"
    async with street.ven(port) as ven:
        async with street.serving(port=port) as first:
            await street.until(lambda: ven.registrations)
            await street.issue(first, setpoint)
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        async with street.serving(port=port, restore=[setpoint]) as second:
            await street.until(lambda: ven.registrations == 2)
            assert status(ven) == ["active"]
            (outcome,) = await street.issue(second, setpoint)
            assert isinstance(outcome, Applied)
            assert ven.commanded_kw(datetime.now(UTC)) == -80.0


async def test_a_revision_after_a_restart_modifies_instead_of_duplicating(street: Any) -> None:
    first_plan = street.setpoint()
    second_plan = msgspec.structs.replace(first_plan, id="sp_2", revision=1, power_kw=-20.0)
    async with street.serving() as first:
        port = first.port
    async with street.ven(port) as ven:
        async with street.serving(port=port) as first:
            await street.until(lambda: ven.registrations)
            await street.issue(first, first_plan)
        async with street.serving(port=port, restore=[first_plan]) as second:
            (outcome,) = await street.issue(second, second_plan)
            assert isinstance(outcome, Applied)
            (event,) = ven.events
            assert (event.modification, event.load_kw) == (1, 20.0)


async def test_a_released_event_is_not_brought_back_by_a_restart(street: Any) -> None:
    setpoint = street.setpoint()
    async with street.serving() as first:
        port = first.port
    async with street.ven(port) as ven:
        async with street.serving(port=port) as first:
            await street.until(lambda: ven.registrations)
            await street.issue(first, setpoint)
            await first.release("dev_site", order_id="ord_1", revision=0)
        async with street.serving(port=port, restore=[setpoint]) as second:
            assert not (await second.read_back("dev_site")).active
            await street.until(lambda: second.connected("dev_site"))
            assert status(ven) == ["cancelled"]
            # only asking again brings it back, as a modification that the VEN sees
            (outcome,) = await street.issue(second, setpoint)
            assert isinstance(outcome, Applied)
            assert [(e.status, e.modification) for e in ven.events] == [("active", 2)]


async def test_an_opt_out_is_remembered(street: Any) -> None:
    setpoint = street.setpoint()
    async with street.serving() as first, street.ven(first.port, lambda _e: False) as ven:
        await street.until(lambda: ven.registrations)
        await street.issue(first, setpoint)
    async with street.serving(restore=[setpoint]) as second:
        (outcome,) = await street.issue(second, setpoint)
        assert isinstance(outcome, Refused)


async def test_the_state_is_replaced_as_a_whole(street: Any) -> None:
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        await street.until(lambda: ven.registrations)
        await street.issue(adapter, street.setpoint())
    files = sorted(path.name for path in street.folder.iterdir())
    assert files == ["openadr.json"]
    state = msgspec.json.decode((street.folder / "openadr.json").read_bytes())
    assert [event["setpoint"]["id"] for event in state["events"]] == ["sp_1"]
    assert [event["opt_in"] for event in state["events"]] == [True]
