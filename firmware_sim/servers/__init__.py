"""Sockets of simulated devices."""
