"""What a VTN and its VENs are configured with."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.errors import ConfigError

MAX_BODY_BYTES: Final = 512 * 1024
"""Room for about 1,400 intervals in one report: a day of one-minute means."""
_FINGERPRINT: Final = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){9}")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*")
"""The library turns ids of digits into numbers, and puts them into XML as they are."""


@dataclass(frozen=True, kw_only=True)
class OpenAdrVen:
    """One VEN that may register, and the device it stands for."""

    device_id: str
    ven_name: str
    profile: DeviceProfile
    fingerprint: str = ""
    """OpenADR fingerprint of its client certificate; required over TLS."""
    ven_id: str = ""
    """Given to the VEN when it registers; derived from its name when empty."""

    def __post_init__(self) -> None:
        """Derive the venID; raises ConfigError for names and fingerprints of another form."""
        if not self.ven_id:
            digest = hashlib.sha256(self.ven_name.encode()).hexdigest()
            object.__setattr__(self, "ven_id", f"ven-{digest[:20]}")
        for key, value in (("ven_name", self.ven_name), ("ven_id", self.ven_id)):
            if not _NAME.fullmatch(value):
                msg = f"openadr.vens.{key}: {value!r} must begin with a letter (A-Z 0-9 _ . : -)"
                raise ConfigError(msg)
        if self.fingerprint and not _FINGERPRINT.fullmatch(self.fingerprint):
            msg = (
                f"openadr.vens.fingerprint of {self.ven_name}: write the last ten bytes of the "
                "certificate's SHA-256 as AA:BB:.."
            )
            raise ConfigError(msg)


@dataclass(frozen=True, kw_only=True)
class OpenAdrVtn:
    """Where the VTN listens and how it proves who it is."""

    host: str
    port: int
    """0 takes a free one."""
    vtn_id: str
    state: Path
    """File of registrations and events; written atomically."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    ca_certificate: Path | None = None
    """CA that signs the client certificates of VENs."""
    lab: bool = False
    """Allow plain http, on loopback only."""
    poll_s: float = 10.0
    """Wall seconds between two polls that VENs are asked for."""
    answer_timeout_s: float = 30.0
    """Wall seconds that an event may stay unanswered."""
    market_context: str = "urn:flexway:dispatch"
    max_body_bytes: int = MAX_BODY_BYTES

    def __post_init__(self) -> None:
        """Raises ConfigError for plain http that is not allowed, or half a TLS set-up."""
        given = [self.tls_certificate, self.tls_key, self.ca_certificate]
        if any(given) and not all(given):
            raise ConfigError("openadr: TLS needs tls_certificate, tls_key and ca_certificate")
        if not any(given) and not (self.lab and _loopback(self.host)):
            msg = "openadr: plain http needs lab = true and a loopback host; otherwise set up TLS"
            raise ConfigError(msg)

    @property
    def tls(self) -> bool:
        """Whether VENs prove who they are with a certificate."""
        return self.tls_certificate is not None

    @property
    def silence(self) -> timedelta:
        """Wall time after which a VEN that was not heard is not believed present."""
        return timedelta(seconds=max(3 * self.poll_s, 2.0))


def check_vens(config: OpenAdrVtn, vens: tuple[OpenAdrVen, ...]) -> None:
    """Raises ConfigError when VENs cannot be told apart."""
    for key in ("device_id", "ven_name", "ven_id"):
        values = [getattr(ven, key) for ven in vens]
        if len(set(values)) != len(values):
            msg = f"openadr.vens.{key}: two VENs have the same"
            raise ConfigError(msg)
    if not config.tls:
        return
    prints = [ven.fingerprint for ven in vens]
    if not all(prints) or len(set(prints)) != len(prints):
        msg = "openadr.vens.fingerprint: over TLS every VEN needs one of its own"
        raise ConfigError(msg)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
