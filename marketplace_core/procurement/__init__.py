"""Needs, bids, clearing and contracts."""
