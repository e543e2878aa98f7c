"""Whose eyes a read is for: the organisation as a predicate of every query, deny by default."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, false, or_, true


class Viewer(msgspec.Struct, frozen=True):
    """An organisation that reads, or an operator, who sees everything."""

    organisation: str
    everything: bool = False

    def of(self, *columns: Column[Any]) -> ColumnElement[bool]:
        """Rows in which one of the columns names this organisation; without columns none."""
        if self.everything:
            return true()
        return or_(false(), *(column == self.organisation for column in columns))

    def owns(self, organisation: str) -> bool:
        """Whether something of that organisation is the viewer's to see."""
        return self.everything or organisation == self.organisation
