"""Which control drives a unit: what the configuration names, or what its role suggests."""

from __future__ import annotations

from typing import Final, Literal

from adapters.modbus.control import LIMIT_704, ActivePower, Control, PowerLimit, RestartsOn
from adapters.modbus.heartbeat import Beaten
from adapters.modbus.offer import ControlName
from adapters.modbus.storage import StorageRates
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.errors import ConfigError

Role = Literal["battery", "inverter", "charger", "meter"]
_BY_ROLE: Final[dict[Role, ControlName]] = {"battery": "wset", "inverter": "wmaxlim_123"}


def control_of(
    profile: DeviceProfile, role: Role, name: ControlName | None, restarts_on: RestartsOn, *,
    negative_rates: bool,
) -> Control | None:  # fmt: skip
    """The control, or None for a meter; ConfigError where the profile rules it out."""
    chosen = name or _BY_ROLE.get(role)
    if chosen is None:
        return None
    control: Control
    if chosen == "wset":
        control = ActivePower(profile, restarts_on)
    elif chosen == "storage_124":
        control = StorageRates(profile, restarts_on, negative_rates=negative_rates)
    elif chosen == "wmaxlim_704":
        control = PowerLimit(profile, restarts_on, LIMIT_704)
    else:
        control = PowerLimit(profile, restarts_on)
    if profile.lease is not LeaseKind.HEARTBEAT:
        return control
    if profile.fallback_kw is None:
        raise ConfigError(
            f"{profile.device_id}: model 715 defines no fallback of its own: declare fallback_kw, "
            "the power that the unit goes to when the heartbeat stays away"
        )
    return Beaten(control)
