"""The market's commands: each runs inside one transaction and journals one fact."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from gateway.store.market import (
    add_assets,
    add_bid,
    add_need,
    assets_by_id,
    bids_for,
    contract_by_id,
    need_by_id,
    record_clearing,
    save_contract,
)
from gateway.store.writer import Transaction
from marketplace_core.commands import PlaceBid, PublishNeed
from marketplace_core.errors import RejectedError
from marketplace_core.events import (
    AssetsRegistered,
    AuctionCleared,
    BidPlaced,
    ContractSigned,
    NeedPublished,
)
from marketplace_core.ports import Clock
from marketplace_core.procurement.admission import validate_bid, validate_need
from marketplace_core.procurement.bid import Bid
from marketplace_core.procurement.clearing import clear, contracts_from
from marketplace_core.procurement.contract import Contract
from marketplace_core.procurement.need import Need
from marketplace_core.registry.asset import Asset


class Market:
    """Needs, bids, clearing and contracts."""

    def __init__(self, clock: Clock, new_id: Callable[[str], str]) -> None:
        self._clock = clock
        self._new_id = new_id

    def register(
        self, transaction: Transaction, organisation: str, assets: Sequence[Asset]
    ) -> Sequence[Asset]:
        """Register an organisation's assets, all or none; repeating it updates them."""
        add_assets(transaction.connection, assets)
        fact = AssetsRegistered(organisation=organisation, assets=tuple(assets))
        transaction.append(organisation, fact)
        return assets

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
            raise RejectedError(f"there is no need {need_id}", field="need_id", rule="known need")
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
            raise RejectedError(f"there is no contract {contract_id}", field="contract_id")
        if organisation in contract.signed_by:
            return contract
        signed = msgspec.structs.replace(contract, signed_by=(*contract.signed_by, organisation))
        save_contract(transaction.connection, signed)
        fact = ContractSigned(
            contract_id=contract_id, organisation=organisation, at=self._clock.now()
        )
        transaction.append(contract.need_id, fact)
        return signed
