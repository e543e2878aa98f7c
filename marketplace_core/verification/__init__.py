"""Readings, baselines, delivered energy and its evidence."""
