"""Certificates for tests: a CA and what it signs, valid as long as a test says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def make_certificate(
    folder: Path, name: str, *, begins: datetime | None = None, days: float = 365.0
) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key (mode 0600): two PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    begins = begins or datetime.now(UTC) - timedelta(hours=1)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        _unsigned(subject, subject, key, begins, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    return _written(folder, name, made, key)


class Authority:
    """A CA for tests, and what it signs into its folder."""

    def __init__(self, folder: Path, name: str = "CA of a test") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        made = (
            _unsigned(self._name, self._name, self._key, now - timedelta(days=30), 150.0)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = folder / "ca.pem"
        self.certificate.write_bytes(made.public_bytes(Encoding.PEM))

    def issue(
        self, name: str, *, begins: datetime | None = None, days: float = 90.0
    ) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 and its key (mode 0600), good for either end of TLS."""
        key = ec.generate_private_key(ec.SECP256R1())
        begins = begins or datetime.now(UTC) - timedelta(hours=1)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = (
            _unsigned(subject, self._name, key, begins, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .sign(self._key, hashes.SHA256())
        )
        return _written(self._folder, name, made, key)


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begins: datetime,
    days: float,
) -> x509.CertificateBuilder:  # fmt: skip
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    return (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins).not_valid_after(begins + timedelta(days=days))
        .add_extension(names, False)
    )  # fmt: skip


def _written(
    folder: Path, name: str, made: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> tuple[Path, Path]:
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    paths[1].touch(mode=0o600)
    paths[1].write_bytes(pem)
    return paths
