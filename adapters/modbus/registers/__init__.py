"""Devices that are not SunSpec, driven and read by a map of their registers."""
