"""`flexway broker`: what a site's MQTT broker has to know of the gateway and its devices."""

from gateway.cli.broker.command import broker

__all__ = ["broker"]
