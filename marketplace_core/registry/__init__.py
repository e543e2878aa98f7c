"""Organisations, assets and where they are."""
