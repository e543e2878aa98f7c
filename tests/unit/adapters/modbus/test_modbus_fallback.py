"""What a battery does when its lease lapses, over a real Modbus socket.

Source: SunSpec model 704 (DER AC Controls), group DERCtlAC, as in pysunspec2's
`models/json/model_704.json`: WSetRvrt is the "reversion active power setting value in
watts", WSetEnaRvrt the "reversion active power function enable" (0 = the function is
disabled, 1 = enabled), WSetRvrtTms the "set active power reversion time". So each *Rvrt point
is what its partner becomes when the time is over: WSet becomes WSetRvrt, WSetEna becomes
WSetEnaRvrt.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sunspec2

from adapters.modbus.sunspec import load_model
from marketplace_core.dispatch.setpoint import Applied
from tests.harness.modbus import Rig, rig, setpoint

pytestmark = pytest.mark.process
LEASE_S = 60.0


def written(lab: Rig, name: str) -> list[int]:
    """Registers that were written to a point of model 704, the last time."""
    offset = load_model(704).points[name].offset
    return [values for where, values in lab.writes() if where == offset][-1]


async def lapse(lab: Rig) -> None:
    """A setpoint comes into force and nobody refreshes it."""
    outcome = await lab.issue(setpoint(3.0))
    assert isinstance(outcome, Applied)
    lab.now[0] += LEASE_S - 0.1
    assert lab.battery.commanded_kw() == 3.0
    lab.now[0] += 0.2


@pytest.mark.parametrize("fallback_kw", [-1.5, 0.0, 2.0])
async def test_battery_holds_its_declared_fallback_when_the_lease_lapses(
    fallback_kw: float,
) -> None:
    async with rig(fallback_kw=fallback_kw) as lab:
        await lapse(lab)
        assert lab.battery.commanded_kw() == fallback_kw
        answer = await lab.adapter.read_back("bat-1")
        # It is held for good: the fallback is no lease, and no time is left to run.
        assert (answer.active, answer.setpoint_kw) == (True, fallback_kw)
        assert answer.lease_remaining_s == 0.0
        lab.now[0] += 10 * LEASE_S
        assert lab.battery.commanded_kw() == fallback_kw


async def test_battery_without_a_fallback_returns_to_its_own_behaviour() -> None:
    async with rig() as lab:
        await lapse(lab)
        assert lab.battery.commanded_kw() is None
        assert not (await lab.adapter.read_back("bat-1")).active
        assert written(lab, "WSetEnaRvrt") == [0]


async def test_fallback_is_written_before_the_setpoint_that_may_need_it() -> None:
    async with rig(fallback_kw=-1.5) as lab:
        await lab.issue(setpoint(3.0))
        order = [where for where, _ in lab.writes()]
        points = load_model(704).points
        for name in ("WSetRvrt", "WSetEnaRvrt", "WSetRvrtTms"):
            assert order.index(points[name].offset) < order.index(points["WSet"].offset)
        assert written(lab, "WSetEnaRvrt") == [1]
        assert written(lab, "WSetRvrt") == [0xFFFF, 0xFA24]  # -1500 W, 32 bits


async def test_next_setpoint_takes_over_from_the_fallback() -> None:
    async with rig(fallback_kw=-1.5) as lab:
        await lapse(lab)
        outcome = await lab.issue(setpoint(2.0, id="spt_2"))
        assert isinstance(outcome, Applied)
        assert outcome.lease_remaining_s == LEASE_S
        assert lab.battery.commanded_kw() == 2.0


async def test_release_ends_the_fallback_too() -> None:
    async with rig(fallback_kw=-1.5) as lab:
        await lapse(lab)
        assert isinstance(await lab.adapter.release("bat-1", order_id="ord_1", revision=0), Applied)
        assert lab.battery.commanded_kw() is None


def test_reversion_points_as_the_public_definition_words_them() -> None:
    file = Path(sunspec2.__file__).parent / "models" / "json" / "model_704.json"
    points = {p["name"]: p for p in json.loads(file.read_text())["group"]["points"]}
    assert points["WSetRvrt"]["desc"] == "Reversion active power setting value in watts."
    assert points["WSetRvrt"]["sf"] == points["WSet"]["sf"]  # a value like WSet itself
    assert points["WSetEnaRvrt"]["desc"] == "Reversion active power function enable."
    assert points["WSetEnaRvrt"]["symbols"] == points["WSetEna"]["symbols"]
    assert points["WSetRvrtTms"]["units"] == "Secs"
