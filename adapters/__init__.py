"""How a device speaks: one package per protocol, none of which imports another."""
