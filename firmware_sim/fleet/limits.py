"""Open files: each connection and each listening port is one."""

from __future__ import annotations

import resource
from typing import Final

from marketplace_core.errors import ConfigError

_OTHERS: Final = 64
"""Files that a process needs beside its connections."""


def allow_open_files(connections: int) -> None:
    """Raise the process's own limit as far as needed. Raises: ConfigError with what to do."""
    needed = connections + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"{connections} connections need {needed} open files and this process may have {hard}:"
            f" start it with `ulimit -n {needed}`, after raising the hard limit (nofile in"
            " /etc/security/limits.conf, LimitNOFILE= of a systemd unit), or take fewer devices;"
            " the broker needs as many"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
