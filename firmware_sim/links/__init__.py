"""Binds the plant's devices to the servers that speak for them, one module per protocol."""
