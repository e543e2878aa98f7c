from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from marketplace_core.errors import StoreError


async def test_a_report_becomes_a_reading_in_market_time(street: Any) -> None:
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        market = street.map.market_epoch + timedelta(minutes=3)
        ven.measured(street.map.to_wall(market), -52.5)
        ven.measured(street.map.to_wall(market + timedelta(minutes=1)), 4.25)
        await street.until(lambda: len(street.sink.readings) == 2)
        first, second = street.sink.readings
        assert (first.series, first.start, first.seconds) == ("dev_site", market, 60.0)
        assert (first.power_kw, second.power_kw) == (-52.5, 4.25)
        assert second.start == first.end
        await street.until(lambda: ven.waiting == 0)


async def test_the_answer_to_a_report_comes_after_the_commit(street: Any) -> None:
    street.sink.gate.clear()
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        ven.measured(datetime.now(UTC), -1.0)
        await asyncio.wait_for(street.sink.entered.wait(), 5.0)
        # the VTN goes on with others while this one commits; the VEN keeps its reading
        await street.until(lambda: adapter.connected("dev_site"))
        assert ven.waiting == 1
        street.sink.gate.set()
        await street.until(lambda: ven.waiting == 0)
        assert len(street.sink.readings) == 1


async def test_what_could_not_be_stored_is_kept_by_the_ven_and_sent_again(street: Any) -> None:
    street.sink.error = StoreError("the disk is full")
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        ven.measured(datetime.now(UTC), -1.0)
        await asyncio.wait_for(street.sink.entered.wait(), 5.0)
        assert ven.waiting == 1
        street.sink.error = None
        await street.until(lambda: ven.waiting == 0)
        assert [reading.power_kw for reading in street.sink.readings] == [-1.0]


async def test_reports_survive_an_absent_vtn_and_its_restart(street: Any) -> None:
    async with street.serving() as first:
        port = first.port
    async with street.ven(port) as ven:
        ven.measured(datetime.now(UTC), -1.0)
        async with street.serving(port=port):
            await street.until(lambda: ven.waiting == 0)
        for number in range(100):
            ven.measured(datetime.now(UTC), -2.0 - number)
        assert ven.waiting == 100
        # the restarted VTN knows the data point without being told again
        async with street.serving(port=port):
            await street.until(lambda: ven.waiting == 0)
    assert [r.power_kw for r in street.sink.readings] == [-1.0 - n for n in range(101)]
    assert ven.registrations == 1


async def test_the_outbox_is_bounded_and_says_what_it_dropped(street: Any) -> None:
    async with street.ven(1) as ven:
        for number in range(10_003):
            ven.measured(datetime.now(UTC), float(number))
    assert (ven.waiting, ven.dropped) == (10_000, 3)


@pytest.mark.parametrize("power_kw", [float("nan"), float("inf"), float("-inf")])
async def test_the_site_does_not_report_what_is_no_number(street: Any, power_kw: float) -> None:
    async with street.ven(1) as ven:
        with pytest.raises(ValueError, match="no power"):
            ven.measured(datetime.now(UTC), power_kw)
        assert ven.waiting == 0


async def test_an_interval_that_cannot_be_read_is_put_aside_and_the_rest_is_kept(
    street: Any,
) -> None:
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        await street.until(lambda: ven.registrations)
        message = street.message("update_report")
        message = message.replace(b"PLACE-OF-VEN-ID", street.ven_id.encode())
        status, answer = await street.post(adapter.port, "EiReport", message)
        assert status == 200
        assert b"oadrUpdatedReport" in answer
        assert b"<ei:responseCode>200<" in answer
        assert [reading.power_kw for reading in street.sink.readings] == [-12.5, 3.0]
        reasons = [reason for _, reason, _ in street.sink.quarantined]
        assert reasons == [
            "NaN is no power",
            "INF is no power",
            "rID 'other' was not asked for",
            "2018-07-10T20:05:00 does not say that it is UTC",
            "duration 'P1Y'",
        ]
        assert {source for source, _, _ in street.sink.quarantined} == {"openadr:carpark"}
        assert all(b"interval" in evidence for _, _, evidence in street.sink.quarantined)
        assert adapter.counters["defects"] == 5
