"""A dry run on what the market and the devices are now."""

from __future__ import annotations

from sqlalchemy import Connection

from gateway.api.services import Services
from gateway.store.market import called_by_others, contracts_for, devices_of, need_by_id
from gateway.store.plans import others_beside
from marketplace_core.commands import SubmitOrder
from marketplace_core.dispatch.bounds import DeviceState
from marketplace_core.dispatch.dry_run import DryRun, rehearse
from marketplace_core.procurement.contract import Contract


def rehearsal(
    connection: Connection, services: Services, buyer: str, command: SubmitOrder
) -> DryRun:
    """What an order would do; refused for what the order would be refused for. Writes nothing."""
    draft = services.intake.draft(connection, buyer, command, "dry-run")
    contracts = contracts_for(connection, draft.need_id)
    need, _ = need_by_id(connection, draft.need_id)
    fleet = {each.id: _devices(connection, services, each) for each in contracts}
    called = called_by_others(connection, draft)
    others = others_beside(connection, draft.id, draft.interval, services.clock.now())
    return rehearse(draft, contracts, called, fleet, need.currency, others=others)


def _devices(connection: Connection, services: Services, contract: Contract) -> list[DeviceState]:
    return services.live.devices(devices_of(connection, contract.assets))
