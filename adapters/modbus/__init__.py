"""Modbus TCP and SunSpec."""
