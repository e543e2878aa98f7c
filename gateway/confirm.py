"""Two-step orders: a dry run gives a token, the order that comes with it is the one shown.

A token is good for one order, which has to do what was shown: before it is taken, the dry run
is made again and compared (`_differences`).
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from gateway.credentials import Signer
from gateway.store.confirmations import order_confirmed_by, use_confirmation
from gateway.store.writer import Transaction
from marketplace_core.commands import SubmitOrder
from marketplace_core.dispatch.dry_run import DryRun
from marketplace_core.dispatch.order import Order
from marketplace_core.errors import RejectedError
from marketplace_core.ports import Clock

TOLERANCE: Final = 0.05
"""Part of the shown power and cost that may have changed: batteries drain while one decides."""
_CENT: Final = 0.01
_WATT: Final = 3
"""Decimals of a kW that are compared."""


class ConfirmClaim(msgspec.Struct, frozen=True, kw_only=True):
    """What a confirm token stands for."""

    buyer: str
    request: str
    """SHA-256 of the canonical order, in hex."""
    called: str
    """SHA-256 of whom it calls for what, and of what is short, in hex."""
    planned_kw: float
    """What devices could take of it."""
    cost: Decimal
    nonce: str
    """Tells two dry runs of one instant apart."""
    expires: datetime
    """Market time."""


class Confirmations:
    """Gives out confirm tokens and takes them back, each once."""

    def __init__(self, signer: Signer, clock: Clock, *, valid_for_s: float, required: bool) -> None:
        """`valid_for_s`: wall seconds for a person to decide in; `required`: for every order."""
        self._signer = signer
        self._clock = clock
        self._span = timedelta(seconds=valid_for_s / clock.wall_seconds(1.0))
        self._required = required

    def give(self, buyer: str, command: SubmitOrder, result: DryRun) -> tuple[str, datetime]:
        """A token for what was shown, and until when it is good."""
        expires = self._clock.now() + self._span
        claim = ConfirmClaim(
            buyer=buyer, request=_hash(command), called=_called(result),
            planned_kw=_planned_kw(result), cost=result.cost, nonce=secrets.token_hex(16),
            expires=expires,
        )  # fmt: skip
        return self._signer.sign(claim), expires

    def check(self, buyer: str, command: SubmitOrder, token: str | None) -> ConfirmClaim | None:
        """What a token stands for, None when there is none and none is needed.

        RejectedError when it is needed and missing, forged, expired or for another order.
        """
        if token is None:
            if self._required:
                raise _refused("it is missing", "orders are confirmed after a dry run")
            return None
        claim = self._signer.open(token, ConfirmClaim)
        if claim is None or claim.buyer != buyer:
            raise _refused("it was not given out for you here", "a token is sent back unchanged")
        if claim.request != _hash(command):
            raise _refused("it is for another order", "what is ordered is what was shown")
        if claim.expires <= self._clock.now():
            raise _refused(f"it expired at {claim.expires.isoformat()}", "a token expires")
        return claim

    def submit(
        self,
        transaction: Transaction,
        claim: ConfirmClaim | None,
        *,
        rehearse: Callable[[], DryRun],
        submit: Callable[[], Order],
    ) -> Order:
        """Submit an order under its token and use the token up, in one transaction.

        `rehearse` makes the dry run again. RejectedError when the token was used before, or
        the order would not do what was shown.
        """
        if claim is None:
            return submit()
        number = _hash(claim)
        used_by = order_confirmed_by(transaction.connection, claim.buyer, number)
        if used_by is not None:
            raise _refused(f"order {used_by} was made with it", "a token is good for one order")
        differences = _differences(claim, rehearse())
        if differences:
            raise _refused("; ".join(differences), "an order does what its dry run showed")
        order = submit()
        use_confirmation(transaction.connection, claim.buyer, number, order.id)
        return order


def _differences(claim: ConfirmClaim, now: DryRun) -> list[str]:
    """How an order would differ from what its buyer decided on.

    Which devices take which share is not compared: that is planned anew every time.
    """
    planned, cost = _planned_kw(now), float(now.cost)
    found = []
    if _called(now) != claim.called:
        found.append("other contracts, power, prices or shortfall than were shown")
    if not math.isclose(planned, claim.planned_kw, rel_tol=TOLERANCE, abs_tol=10**-_WATT):
        found.append(f"devices can take {planned:.3f} kW, {claim.planned_kw:.3f} kW were shown")
    if not math.isclose(cost, float(claim.cost), rel_tol=TOLERANCE, abs_tol=_CENT):
        found.append(f"it costs {now.cost} {now.currency}, {claim.cost} were shown")
    return found


def _called(result: DryRun) -> str:
    calls = [
        (each.call.contract_id, each.call.seller, round(each.call.kw, _WATT), each.call.price)
        for each in result.calls
    ]
    short = round(result.shortfall_kw, _WATT)
    return _hash((sorted(calls), short, result.feasible, result.currency))


def _planned_kw(result: DryRun) -> float:
    return math.fsum(each.planned_kw for each in result.calls)


def _hash(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def _refused(message: str, rule: str) -> RejectedError:
    return RejectedError(
        f"the confirm token cannot be used: {message}", field="confirm", rule=rule,
        remedy="make a dry run with POST /v1/orders/dry-run",
    )  # fmt: skip
