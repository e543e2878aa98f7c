"""Devices that behave: physics, faults and scenarios; `servers` holds the sockets."""
