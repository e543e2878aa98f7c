"""The only place that names concrete classes and reads the configuration."""

from gateway.bootstrap.service import build
from gateway.bootstrap.shards import build_worker

__all__ = ["build", "build_worker"]
