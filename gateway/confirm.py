"""Two-step orders: a dry run gives a token, the order that comes with it is the one shown."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import msgspec

from gateway.credentials import Signer
from marketplace_core.commands import SubmitOrder
from marketplace_core.dispatch.dry_run import DryRun
from marketplace_core.errors import RejectedError
from marketplace_core.ports import Clock


class ConfirmClaim(msgspec.Struct, frozen=True, kw_only=True):
    """What a confirm token stands for."""

    buyer: str
    request: str
    """SHA-256 of the canonical order, in hex."""
    result: str
    """SHA-256 of the canonical outcome that was shown, in hex."""
    expires: datetime
    """Market time."""


class Confirmations:
    """Gives out confirm tokens and takes them back."""

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
            buyer=buyer, request=_hash(command), result=_hash(result), expires=expires
        )
        return self._signer.sign(claim), expires

    def check(self, buyer: str, command: SubmitOrder, token: str | None) -> None:
        """RejectedError when it is needed and missing, forged, expired or for another order."""
        if token is None:
            if self._required:
                raise _refused("it is missing", "orders are confirmed after a dry run")
            return
        claim = self._signer.open(token, ConfirmClaim)
        if claim is None or claim.buyer != buyer:
            raise _refused("it was not given out for you here", "a token is sent back unchanged")
        if claim.request != _hash(command):
            raise _refused("it is for another order", "what is ordered is what was shown")
        if claim.expires <= self._clock.now():
            raise _refused(f"it expired at {claim.expires.isoformat()}", "a token expires")


def _hash(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def _refused(message: str, rule: str) -> RejectedError:
    return RejectedError(
        f"the confirm token cannot be used: {message}", field="confirm", rule=rule,
        remedy="make a dry run with POST /v1/orders/dry-run",
    )  # fmt: skip
