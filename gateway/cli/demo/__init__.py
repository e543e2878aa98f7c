"""`flexway demo`: a whole day on one feeder, over real sockets or in virtual time."""

from gateway.cli.demo.command import demo

__all__ = ["demo"]
