"""`flexway commission`: a safe test of a device, and the entry that its result allows."""

from gateway.cli.commission.command import commission

__all__ = ["commission"]
