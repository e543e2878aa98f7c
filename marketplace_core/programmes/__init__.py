"""Programmes that exist: what they ask, what they pay, where that is written."""
