"""The market's commands: each runs inside one transaction and journals one fact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from gateway.store.disputes import add_dispute, open_dispute_of, save_dispute
from gateway.store.disputes import dispute as dispute_by_id
from gateway.store.locations import place, tree
from gateway.store.market import (
    add_bid,
    add_need,
    assets_by_id,
    bids_for,
    contract_by_id,
    need_by_id,
    record_clearing,
    save_contract,
)
from gateway.store.organisations import OrganisationState, add_organisation, set_organisation_state
from gateway.store.registry import conflicts, save_assets
from gateway.store.statements import booked_line, newest_version
from gateway.store.viewer import Viewer
from gateway.store.writer import Transaction
from marketplace_core.commands import PlaceBid, PublishNeed
from marketplace_core.errors import NotFoundError, RejectedError
from marketplace_core.events import (
    AssetsRegistered,
    AuctionCleared,
    BidPlaced,
    ContractSigned,
    DisputeOpened,
    DisputeResolved,
    LocationsPlaced,
    NeedPublished,
    OrganisationRegistered,
    OrganisationReinstated,
    OrganisationSuspended,
)
from marketplace_core.ports import Clock
from marketplace_core.procurement.admission import validate_bid, validate_need
from marketplace_core.procurement.bid import Bid
from marketplace_core.procurement.clearing import clear, contracts_from
from marketplace_core.procurement.contract import Contract
from marketplace_core.procurement.need import Need
from marketplace_core.registry.asset import Asset
from marketplace_core.registry.location import Location, validate_locations
from marketplace_core.registry.rules import validate_assets
from marketplace_core.settlement.dispute import Dispute, open_dispute, resolve_dispute


class Market:
    """Assets, needs, bids, clearing, contracts, disputes, and who takes part."""

    def __init__(
        self,
        clock: Clock,
        new_id: Callable[[str], str],
        owners: Mapping[str, str] | None = None,
    ) -> None:
        """`owners` names the organisations that the configuration binds devices to."""
        self._clock = clock
        self._new_id = new_id
        self._owners = dict(owners or {})

    def register(
        self, transaction: Transaction, organisation: str, assets: Sequence[Asset]
    ) -> Sequence[Asset]:
        """Register an organisation's assets, all or none; repeating it updates them."""
        validate_assets(organisation, assets)
        refused = conflicts(transaction.connection, assets, self._owners)
        if refused:
            raise next(iter(refused.values()))
        self._save(transaction, organisation, assets)
        return assets

    def register_valid(
        self, transaction: Transaction, organisation: str, assets: Sequence[Asset], *, dry: bool
    ) -> dict[str, RejectedError]:
        """Register those that can be; return why the others cannot, by id. Dry: only say so.

        The assets are valid by themselves and together, as `parse_assets` gives them.
        """
        refused = conflicts(transaction.connection, assets, self._owners)
        good = [asset for asset in assets if asset.id not in refused]
        if good and not dry:
            self._save(transaction, organisation, good)
        return refused

    def _save(self, transaction: Transaction, organisation: str, assets: Sequence[Asset]) -> None:
        save_assets(transaction.connection, assets)
        fact = AssetsRegistered(organisation=organisation, assets=tuple(assets))
        transaction.append(organisation, fact)

    def publish(self, transaction: Transaction, buyer: str, command: PublishNeed) -> Need:
        """Publish a need; RejectedError names the rule it breaks."""
        validate_need(command)
        need = Need(id=self._new_id("need"), buyer=buyer, **msgspec.structs.asdict(command))
        add_need(transaction.connection, need)
        transaction.append(need.id, NeedPublished(need=need))
        return need

    def bid(self, transaction: Transaction, seller: str, command: PlaceBid) -> Bid:
        """Place a bid; RejectedError names the rule it breaks."""
        need, state = need_by_id(transaction.connection, command.need_id)
        if state != "open":
            raise RejectedError(
                f"need {need.id} is {state}", field="need_id", rule="bids go to open needs"
            )
        found = assets_by_id(transaction.connection, command.assets)
        validate_bid(need, command, found, seller)
        bid = Bid(id=self._new_id("bid"), seller=seller, **msgspec.structs.asdict(command))
        add_bid(transaction.connection, bid)
        transaction.append(need.id, BidPlaced(bid=bid))
        return bid

    def clear(self, transaction: Transaction, buyer: str, need_id: str) -> AuctionCleared:
        """Clear a need's auction and offer contracts for signature."""
        connection = transaction.connection
        need, state = need_by_id(connection, need_id)
        if need.buyer != buyer:
            raise NotFoundError("need", need_id)
        if state != "open":
            raise RejectedError(
                f"need {need_id} is {state}", field="need_id", rule="a need clears once"
            )
        bids = bids_for(connection, need_id)
        assets = assets_by_id(connection, [asset for bid in bids for asset in bid.assets])
        clearing = clear(need, bids)
        offered = contracts_from(need, clearing, bids, assets, self._new_id)
        record_clearing(connection, clearing, offered)
        fact = AuctionCleared(clearing=clearing, contracts=tuple(offered))
        transaction.append(need_id, fact)
        return fact

    def sign(self, transaction: Transaction, organisation: str, contract_id: str) -> Contract:
        """Sign a contract for one of its sides; signing twice changes nothing."""
        contract = contract_by_id(transaction.connection, contract_id)
        if organisation not in {contract.buyer, contract.seller}:
            raise NotFoundError("contract", contract_id)
        if organisation in contract.signed_by:
            return contract
        signed = msgspec.structs.replace(contract, signed_by=(*contract.signed_by, organisation))
        save_contract(transaction.connection, signed)
        fact = ContractSigned(
            contract_id=contract_id, organisation=organisation, at=self._clock.now()
        )
        transaction.append(contract.need_id, fact)
        return signed

    def place(self, transaction: Transaction, locations: Sequence[Location]) -> Sequence[Location]:
        """Draw places into the network tree; RejectedError names the rule one breaks."""
        validate_locations(tree(transaction.connection), locations)
        place(transaction.connection, locations)
        transaction.append("network", LocationsPlaced(locations=tuple(locations)))
        return locations

    def admit(self, transaction: Transaction, operator: str, name: str, title: str) -> None:
        """Let an organisation in; RejectedError when the id is taken."""
        if not add_organisation(transaction.connection, name, title, self._clock.now()):
            raise RejectedError(
                f"{name} is registered", field="id", rule="ids of organisations are unique",
                remedy="choose another id",
            )  # fmt: skip
        fact = OrganisationRegistered(organisation=name, name=title, by=operator)
        transaction.append(name, fact)

    def suspend(self, transaction: Transaction, operator: str, name: str, reason: str) -> None:
        """Shut an organisation out; suspending it twice changes nothing."""
        if name == operator:
            raise RejectedError(
                f"{name} is your own organisation", field="organisation_id",
                rule="nobody shuts itself out",
            )  # fmt: skip
        state, now = OrganisationState.SUSPENDED, self._clock.now()
        if set_organisation_state(transaction.connection, name, state, reason, now):
            fact = OrganisationSuspended(organisation=name, reason=reason, by=operator)
            transaction.append(name, fact)

    def reinstate(self, transaction: Transaction, operator: str, name: str) -> None:
        """Let a suspended organisation in again; doing it twice changes nothing."""
        state, now = OrganisationState.ACTIVE, self._clock.now()
        if set_organisation_state(transaction.connection, name, state, "", now):
            transaction.append(name, OrganisationReinstated(organisation=name, by=operator))

    def dispute(
        self, transaction: Transaction, viewer: Viewer, line_id: str, reason: str
    ) -> Dispute:
        """Object to a statement line as one of its sides."""
        connection = transaction.connection
        booked = booked_line(connection, viewer, line_id)
        standing = open_dispute_of(connection, line_id)
        if standing is not None:
            raise RejectedError(
                f"dispute {standing} is open about line {line_id}", field="line_id",
                rule="one open dispute per line", remedy="wait for its decision",
            )  # fmt: skip
        made = open_dispute(
            booked.line, booked.buyer, dispute_id=self._new_id("dsp"), by=viewer.organisation,
            at=self._clock.now(), reason=reason,
            newest_version=newest_version(connection, booked.line.order_id),
        )  # fmt: skip
        add_dispute(connection, made)
        transaction.append(made.order_id, DisputeOpened(dispute=made))
        return made

    def resolve(
        self,
        transaction: Transaction,
        viewer: Viewer,
        dispute_id: str,
        *,
        accept: bool,
        resolution: str,
    ) -> Dispute:
        """Decide a dispute; RejectedError when it is decided already."""
        found = dispute_by_id(transaction.connection, viewer, dispute_id)
        decided = resolve_dispute(found, accept=accept, resolution=resolution, at=self._clock.now())
        save_dispute(transaction.connection, decided)
        transaction.append(decided.order_id, DisputeResolved(dispute=decided))
        return decided
