"""What is wrong with registers, whichever map they are read by."""

from __future__ import annotations

from marketplace_core.errors import FlexwayError


class PointError(FlexwayError):
    """Registers that are not what they are taken for, or a value that they cannot hold."""
