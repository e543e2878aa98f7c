"""Auctions over several windows, cleared to a proven optimum (ADR 19). No I/O, no clock."""
