"""The double-entry ledger: debit positive, credit negative, nothing overwritten."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from marketplace_core.settlement.statement import Posting, StatementLine


class Imbalance(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction whose postings do not sum to zero in one currency."""

    transaction_id: str
    currency: str
    sum: Decimal


def entry(line: StatementLine, buyer: str, transaction_id: str) -> tuple[Posting, ...]:
    """Both sides of a statement line: the buyer's cost and what is owed to the seller.

    A line of nothing is not booked.
    """
    if line.amount == 0:
        return ()
    sides = (
        (f"flexibility_cost:{buyer}", line.amount),
        (f"payable:{line.seller}", -line.amount),
    )
    return tuple(
        Posting(
            transaction_id=transaction_id,
            account=account,
            amount=amount,
            currency=line.currency,
            line_id=line.id,
        )
        for account, amount in sides
    )


def reversal(postings: Iterable[Posting], transaction_id: str) -> tuple[Posting, ...]:
    """Postings that bring every line of `postings` to zero; what is zero is left alone."""
    standing: dict[tuple[str, str, str], Decimal] = {}
    for posting in postings:
        key = (posting.line_id, posting.account, posting.currency)
        standing[key] = standing.get(key, Decimal(0)) + posting.amount
    return tuple(
        Posting(
            transaction_id=transaction_id,
            account=account,
            amount=-amount,
            currency=currency,
            line_id=line_id,
        )
        for (line_id, account, currency), amount in standing.items()
        if amount != 0
    )


def balance(postings: Iterable[Posting]) -> dict[tuple[str, str], Decimal]:
    """Balance of every account and currency that was posted to."""
    totals: dict[tuple[str, str], Decimal] = {}
    for posting in postings:
        key = (posting.account, posting.currency)
        totals[key] = totals.get(key, Decimal(0)) + posting.amount
    return totals


def check(postings: Iterable[Posting]) -> tuple[Imbalance, ...]:
    """Transactions that do not sum to zero; none when the books balance."""
    sums: dict[tuple[str, str], Decimal] = {}
    for posting in postings:
        key = (posting.transaction_id, posting.currency)
        sums[key] = sums.get(key, Decimal(0)) + posting.amount
    return tuple(
        Imbalance(transaction_id=transaction, currency=currency, sum=total)
        for (transaction, currency), total in sums.items()
        if total != 0
    )
