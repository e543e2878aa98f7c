"""Certificates and keys as files: there, readable, valid today, belonging together."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from config.findings import Finding, Location, Severity

_SOON: Final = timedelta(days=30)
_SPKI: Final = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pair_findings(
    certificate: tuple[Location, Path], key: tuple[Location, Path], now: datetime
) -> Iterator[Finding]:
    """What is wrong with a certificate and its key; both files can be read."""
    loaded = yield from _certificate(*certificate, now)
    location, path = key
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        yield Finding(
            location=location, message=f"{path} holds no usable key: {error}",
            remedy="give an unencrypted PEM key",
        )  # fmt: skip
        return
    ours = private.public_key().public_bytes(*_SPKI)
    if loaded is not None and ours != loaded.public_key().public_bytes(*_SPKI):
        yield Finding(
            location=location, message=f"{path} is not the key of {certificate[1]}",
            remedy="give the key that the certificate was made with",
        )  # fmt: skip


def authority_findings(location: Location, path: Path, now: datetime) -> Iterator[Finding]:
    """What is wrong with a file of CA certificates that can be read."""
    yield from _certificate(location, path, now)


def common_name(path: Path) -> str:
    """The CN of a file's first certificate, which brokers take as a login; "" without one.

    Raises: OSError, ValueError when the file cannot be read or holds no certificate.
    """
    subject = x509.load_pem_x509_certificates(path.read_bytes())[0].subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _certificate(
    location: Location, path: Path, now: datetime
) -> Generator[Finding, None, x509.Certificate | None]:
    """Yield what is wrong with the first certificate of a file; return it."""
    try:
        loaded = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except ValueError as error:
        yield Finding(
            location=location, message=f"{path} holds no certificate: {error}",
            remedy="give a certificate in PEM form",
        )  # fmt: skip
        return None
    begins, ends = loaded.not_valid_before_utc, loaded.not_valid_after_utc
    if now < begins:
        yield Finding(
            location=location, message=f"{path} is not valid before {begins:%Y-%m-%d %H:%M} UTC",
            remedy="check this machine's clock, or wait", stops=False,
        )  # fmt: skip
    elif now >= ends:
        yield Finding(
            location=location, message=f"{path} expired on {ends:%Y-%m-%d %H:%M} UTC",
            remedy="renew it: nobody who checks it connects any more", stops=False,
        )  # fmt: skip
    elif ends - now < _SOON:
        yield Finding(
            location=location, message=f"{path} expires on {ends:%Y-%m-%d}",
            remedy="renew it before that day", severity=Severity.WARNING,
        )  # fmt: skip
    return loaded
