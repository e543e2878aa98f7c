"""Thousands of light devices in one process: vectorised physics, one connection each."""
