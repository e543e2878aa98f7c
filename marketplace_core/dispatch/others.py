"""Other orders that run: which devices they have, and what those would do by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from marketplace_core.dispatch.bounds import DeviceState
from marketplace_core.events import OrderPlanned
from marketplace_core.intervals import Interval
from marketplace_core.units import Kw


class Others(msgspec.Struct, frozen=True):
    """What an order has to know of those beside it."""

    taken: Mapping[str, str] = {}
    """Devices that another order has for some of the time, and which order."""
    references: Mapping[str, Kw] = {}
    """Power in kW that devices under a setpoint now would have by themselves."""

    def referred(self, device: DeviceState) -> DeviceState:
        """A device by what it would do by itself: what it measures now is another order's."""
        known = self.references.get(device.profile.device_id)
        return device if known is None else msgspec.structs.replace(device, reference_kw=known)


NONE: Final = Others()


def others_of(plans: Iterable[OrderPlanned], span: Interval, now: datetime) -> Others:
    """What the plans in force of other orders mean for an order over `span` that is planned now.

    A setpoint is absolute: one that a second order adds to would be counted for both.
    """
    taken: dict[str, str] = {}
    references: dict[str, Kw] = {}
    for plan in plans:
        for each in plan.allocations:
            if plan.interval.overlap(span) is not None:
                taken[each.device_id] = plan.order_id
            if plan.interval.contains(now):
                references[each.device_id] = each.reference_kw
    return Others(taken, references)
