from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters.openadr.config import OpenAdrVen, OpenAdrVtn, check_vens
from adapters.openadr.wire import fingerprint
from firmware_sim.servers.openadr import VenTls
from marketplace_core.dispatch.setpoint import Applied
from marketplace_core.errors import ConfigError

POLL = "OadrPoll"


def poll_of(street: Any, ven_id: str | None = None) -> bytes:
    body: bytes = street.message("poll")
    return body.replace(b"PLACE-OF-VEN-ID", (ven_id or street.ven_id).encode())


@pytest.mark.parametrize(
    ("change", "status", "counter"),
    [
        (lambda body: body.replace(b"oadrPoll", b"oadrPull"), 400, "refused_schema"),
        (lambda body: body[:-20], 400, "refused_xml"),
        (lambda _body: b"", 400, "refused_xml"),
        (lambda body: body.decode().encode("utf-16"), 400, "refused_encoding"),
        (lambda body: body + b" " * 600_000, 413, "refused_size"),
        (lambda body: b"<!DOCTYPE a>" + body.split(b"?>")[1], 400, "refused_dtd"),
    ],
)
async def test_a_bad_body_is_refused_and_the_next_poll_works(
    street: Any, change: Any, status: int, counter: str
) -> None:
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        await street.until(lambda: ven.registrations)
        answer, _ = await street.post(adapter.port, POLL, change(poll_of(street)))
        assert answer == status
        assert adapter.counters[counter] == 1
        assert len(street.sink.quarantined) == (status == 400)
        answer, text = await street.post(adapter.port, POLL, poll_of(street))
        assert answer == 200
        assert b"oadrResponse" in text


async def test_a_chunked_body_is_capped_too(street: Any) -> None:
    async def endless() -> Any:
        for _ in range(200):
            yield b" " * 10_000

    async with street.serving() as adapter:
        status, _ = await street.post(adapter.port, POLL, endless())
        assert status == 413


async def test_only_xml_is_taken(street: Any) -> None:
    async with street.serving() as adapter:
        status, _ = await street.post(adapter.port, POLL, poll_of(street), "text/plain")
        assert status == 400
        status, _ = await street.post(adapter.port, "EiNothing", poll_of(street))
        assert status == 404


async def test_an_unknown_ven_gets_no_registration_and_no_answer(street: Any) -> None:
    async with street.serving() as adapter, street.ven(adapter.port, name="stranger") as ven:
        await street.until(lambda: adapter.counters["strangers"] >= 2)
        assert ven.registrations == 0
        status, _ = await street.post(adapter.port, POLL, poll_of(street, "ven-unknown"))
        assert status == 403
        assert adapter.counters["refused_identity"] == 1


async def test_a_configured_ven_that_is_not_registered_is_asked_to_register(street: Any) -> None:
    async with street.serving() as adapter:
        for service, name in ((POLL, "poll"), ("EiReport", "update_report")):
            body = street.message(name).replace(b"PLACE-OF-VEN-ID", street.ven_id.encode())
            status, text = await street.post(adapter.port, service, body)
            assert status == 200
            assert b"oadrRequestReregistration" in text
        assert street.sink.readings == []


async def test_vens_are_held_off_until_their_events_are_known(street: Any) -> None:
    async with street.serving(restore=None) as adapter:
        status, _ = await street.post(adapter.port, POLL, poll_of(street))
        assert status == 503
        adapter.restore([])
        await street.until(lambda: not adapter._link.gate.held)
        status, _ = await street.post(adapter.port, POLL, poll_of(street))
        assert status == 200


async def test_a_ven_that_leaves_has_to_register_again(street: Any) -> None:
    leave = street.message("poll")
    leave = leave.replace(b"oadrPoll", b"oadrCancelPartyRegistration").replace(
        b"<ei:venID>",
        b'<requestID xmlns="http://docs.oasis-open.org/ns/energyinterop/201110/payloads">r'
        b"</requestID><ei:registrationID>x</ei:registrationID><ei:venID>",
    )
    leave = leave.replace(b"PLACE-OF-VEN-ID", street.ven_id.encode())
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        await street.until(lambda: ven.registrations)
        status, text = await street.post(adapter.port, "EiRegisterParty", leave)
        assert status == 200
        assert b"oadrCanceledPartyRegistration" in text
        await street.until(lambda: ven.registrations == 2)


@pytest.mark.parametrize(
    "change",
    [
        {"lab": False},
        {"lab": True, "host": "0.0.0.0"},
        {"lab": True, "tls_certificate": Path("only-one.pem")},
    ],
)
def test_plain_http_needs_the_lab_and_loopback(tmp_path: Path, change: dict[str, Any]) -> None:
    common = {"host": "127.0.0.1", "port": 0, "vtn_id": "v", "state": tmp_path / "s"}
    with pytest.raises(ConfigError):
        OpenAdrVtn(**{**common, **change})


@pytest.mark.parametrize(
    "change",
    [{"ven_name": "12"}, {"ven_id": "1.5"}, {"ven_name": "a<b"}, {"fingerprint": "aa:bb"}],
)
def test_names_that_the_library_would_change_are_refused(
    street: Any, change: dict[str, str]
) -> None:
    common = {"device_id": "d", "ven_name": "carpark", "profile": street.profile}
    with pytest.raises(ConfigError):
        OpenAdrVen(**{**common, **change})


def test_vens_must_be_told_apart(street: Any, tmp_path: Path) -> None:
    config = street.adapter()._config
    one = OpenAdrVen(device_id="d1", ven_name="a", profile=street.profile)
    same_name = OpenAdrVen(device_id="d2", ven_name="a", profile=street.profile)
    with pytest.raises(ConfigError):
        check_vens(config, (one, same_name))
    files = dict.fromkeys(("tls_certificate", "tls_key", "ca_certificate"), tmp_path)
    tls = OpenAdrVtn(host="0.0.0.0", port=0, vtn_id="v", state=tmp_path / "s", **files)
    with pytest.raises(ConfigError):
        check_vens(tls, (one,))


async def test_a_port_that_is_taken_is_a_configuration_error(street: Any) -> None:
    async with street.serving() as adapter:
        other = street.adapter(port=adapter.port)
        other.restore([])
        with pytest.raises(ExceptionGroup) as caught:
            await other.run(street.sink, ready=lambda: None)
        assert caught.group_contains(ConfigError, match="cannot listen")


class Authority:
    """A lab CA in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab CA")])
        self._sign("ca", self._name, self._key, ca=True)
        self.ca = folder / "ca.pem"

    def issue(self, name: str) -> tuple[VenTls, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        der = self._sign(name, subject, key, ca=False)
        tls = VenTls(self.folder / f"{name}.pem", self.folder / f"{name}.key", self.ca)
        return tls, fingerprint(der)

    def _sign(self, name: str, subject: x509.Name, key: Any, *, ca: bool) -> bytes:
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
        secret = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / f"{name}.key").write_bytes(secret)
        return certificate.public_bytes(serialization.Encoding.DER)


@pytest.fixture
def lab(street: Any, tmp_path: Path) -> Any:
    authority = Authority(tmp_path)
    server, _ = authority.issue("vtn")
    street.tls, street.fingerprint = authority.issue("ven")
    street.other_tls, _ = authority.issue("other")
    street.neighbour_tls, fingerprint_of_neighbour = authority.issue("neighbour")
    profile = msgspec.structs.replace(street.profile, device_id="dev_next")
    neighbour = OpenAdrVen(
        device_id="dev_next",
        ven_name="neighbour",
        profile=profile,
        fingerprint=fingerprint_of_neighbour,
    )
    street.neighbours = [neighbour]
    street.vtn_tls = {
        "tls_certificate": server.certificate,
        "tls_key": server.key,
        "ca_certificate": server.ca_certificate,
    }
    return street


async def ask(port: int, tls: VenTls | None, body: bytes) -> int:
    context = ssl.create_default_context()
    if tls is not None:
        context.load_verify_locations(tls.ca_certificate)
        context.load_cert_chain(tls.certificate, tls.key)
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"https://127.0.0.1:{port}/OpenADR2/Simple/2.0b/{POLL}"
    headers = {"Content-Type": "application/xml"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=headers, ssl=context) as response,
    ):
        return response.status


async def test_a_ven_proves_itself_with_its_certificate(lab: Any) -> None:
    async with lab.serving() as adapter, lab.ven(adapter.port, tls=lab.tls) as ven:
        await lab.until(lambda: ven.registrations)
        (outcome,) = await lab.issue(adapter, lab.setpoint())
        assert isinstance(outcome, Applied)
        ven.measured(datetime.now(UTC), -7.0)
        await lab.until(lambda: ven.waiting == 0)
        assert [reading.power_kw for reading in lab.sink.readings] == [-7.0]


async def test_another_certificate_of_the_same_ca_is_refused(lab: Any) -> None:
    async with lab.serving() as adapter:
        assert await ask(adapter.port, lab.other_tls, poll_of(lab)) == 403
        async with lab.ven(adapter.port, tls=lab.other_tls) as ven:
            await lab.until(lambda: adapter.counters["refused_certificate"] >= 3)
            assert ven.registrations == 0
        assert not adapter.connected("dev_site")


async def test_a_certificate_speaks_for_its_own_ven_only(lab: Any) -> None:
    async with lab.serving() as adapter:
        other = lab.neighbours[0].ven_id
        assert await ask(adapter.port, lab.tls, poll_of(lab, other)) == 403
        assert await ask(adapter.port, lab.neighbour_tls, poll_of(lab)) == 403
        assert await ask(adapter.port, lab.neighbour_tls, poll_of(lab, other)) == 200
        async with lab.ven(adapter.port, tls=lab.tls, name="stranger") as ven:
            await lab.until(lambda: adapter.counters["refused_identity"] >= 5)
            assert ven.registrations == 0
        assert await ask(adapter.port, lab.tls, poll_of(lab)) == 200


async def test_nobody_is_heard_without_a_certificate(lab: Any) -> None:
    async with lab.serving() as adapter:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await ask(adapter.port, None, poll_of(lab))
        with pytest.raises(aiohttp.ClientError):
            await lab.post(adapter.port, POLL, poll_of(lab))
        assert not adapter.connected("dev_site")
