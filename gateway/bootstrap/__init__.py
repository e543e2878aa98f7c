"""The only place that names concrete classes and reads the configuration."""

from gateway.bootstrap.service import build

__all__ = ["build"]
