"""Modbus (TCP, RTU, RTU over TCP) and SunSpec."""
