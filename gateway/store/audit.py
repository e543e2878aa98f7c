"""The journal as a participant may read it: deny by default, fact by fact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Connection, literal, select, union

from gateway.store.journal import to_record
from gateway.store.paging import Page, Slice, rows_of
from gateway.store.tables import bids, contracts, journal, needs, orders
from gateway.store.viewer import Viewer
from marketplace_core.events import (
    AssetsRegistered,
    AuctionCleared,
    BidPlaced,
    ContractSigned,
    DisputeOpened,
    DisputeResolved,
    NeedPublished,
    OrderFact,
    OrganisationRegistered,
    OrganisationReinstated,
    OrganisationSuspended,
)
from marketplace_core.ports import Record


class Stake(msgspec.Struct, frozen=True):
    """What a viewer has to do with, by id."""

    needs: frozenset[str]
    """That it published."""
    cleared: frozenset[str]
    """Of those, that are cleared: until then bids are sealed from the buyer too."""
    orders: frozenset[str]
    """That it submitted."""
    contracts: frozenset[str]
    """That it is a side of."""


def facts_page(
    connection: Connection, viewer: Viewer, page: Page, stream: str | None = None
) -> Slice[Record]:
    """Facts that concern the viewer, by time. A page may hold fewer than asked, but goes on."""
    query = select(journal)
    if stream is not None:
        query = query.where(journal.c.stream == stream)
    if not viewer.everything:
        query = query.where(journal.c.stream.in_(_streams(viewer)))
    keys = (journal.c.at_us, journal.c.shard, journal.c.sequence)
    found = rows_of(connection, query, page, *keys)
    may_see = _filter(connection, viewer)
    records = (to_record(row._mapping) for row in found.items)  # noqa: SLF001
    return Slice([record for record in records if may_see(record)], found.following)


def _streams(viewer: Viewer) -> Any:
    return union(
        select(needs.c.id).where(viewer.of(needs.c.buyer)),
        select(orders.c.id).where(viewer.of(orders.c.buyer)),
        select(bids.c.need_id).where(viewer.of(bids.c.seller)),
        select(orders.c.id).where(orders.c.need_id.in_(
            select(bids.c.need_id).where(viewer.of(bids.c.seller)))),
        select(literal(viewer.organisation)),
    )  # fmt: skip


def _filter(connection: Connection, viewer: Viewer) -> Callable[[Record], bool]:
    if viewer.everything:
        return lambda _: True
    own = select(needs.c.id, needs.c.state).where(viewer.of(needs.c.buyer))
    states = {row.id: row.state for row in connection.execute(own)}
    sides = viewer.of(contracts.c.buyer, contracts.c.seller)
    stake = Stake(
        needs=frozenset(states),
        cleared=frozenset(need for need, state in states.items() if state != "open"),
        orders=frozenset(connection.scalars(select(orders.c.id).where(viewer.of(orders.c.buyer)))),
        contracts=frozenset(connection.scalars(select(contracts.c.id).where(sides))),
    )
    return lambda record: concerns(record, viewer.organisation, stake)


def concerns(record: Record, organisation: str, stake: Stake) -> bool:
    """Whether an organisation may see a fact; what is not named here it may not."""
    see = False
    match record.fact:
        case OrderFact(order_id=order_id):
            see = order_id in stake.orders
        case NeedPublished():
            see = True
        case BidPlaced(bid=bid):
            see = bid.seller == organisation or bid.need_id in stake.cleared
        case AuctionCleared():
            see = record.stream in stake.needs
        case ContractSigned(contract_id=contract_id):
            see = contract_id in stake.contracts
        case AssetsRegistered() | OrganisationRegistered():
            see = record.fact.organisation == organisation
        case OrganisationSuspended() | OrganisationReinstated():
            see = record.fact.organisation == organisation
        case DisputeOpened(dispute=dispute) | DisputeResolved(dispute=dispute):
            see = organisation in {dispute.buyer, dispute.seller}
        case _:
            see = False
    return see
