"""Statement lines and ledger entries."""

from __future__ import annotations

from decimal import Decimal

import msgspec


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a seller's statement, traceable to readings and terms."""

    id: str
    order_id: str
    contract_id: str
    seller: str
    version: int
    """1 first; late data supersedes with the next number, the old line is reversed."""
    item: str
    """What is paid: `utilisation`, ..."""
    quantity: Decimal
    unit: str
    price: Decimal
    """Per `unit`."""
    amount: Decimal
    """Rounded once, here, half-even to the cent; positive is paid to the seller."""
    currency: str
    explains: str
    """How the quantity came about: periods, baseline method, terms, source of the rule."""


class Posting(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a double entry: postings of one transaction sum to zero per currency."""

    transaction_id: str
    account: str
    """Such as `payable:org_seller` or `flexibility_cost:org_buyer`."""
    amount: Decimal
    """Debit positive, credit negative."""
    currency: str
    line_id: str
    """The statement line this books."""
