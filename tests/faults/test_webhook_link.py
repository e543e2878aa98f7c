"""Foreign servers that are slow, hang, reset, redirect or never stop; and names that move."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from adapters.webhook.config import WebhookPolicy
from adapters.webhook.link import Answered, Link, NoAnswer, NotSent
from adapters.webhook.wire import MAX_BODY_BYTES
from tests.harness.lab import free_port
from tests.harness.webhook import ACCEPTED, FAST, Request, foreign, http, says

Writer = asyncio.StreamWriter


async def post(url: str, policy: WebhookPolicy = FAST, **more: object) -> object:
    async with Link(policy, **more) as link:  # type: ignore[arg-type]
        return await link.exchange("POST", url, headers={"X-Test": "1"}, body=b"{}")


async def test_an_answer_comes_back_with_its_status() -> None:
    async with foreign(says(http(418, b"teapot"))) as server:
        answer = await post(server.url)
        assert isinstance(answer, Answered)
        assert (answer.status, answer.body) == (418, b"teapot")
    assert server.requests[0].body == b"{}"
    assert server.requests[0].headers["connection"] == "close"


async def test_a_redirect_is_not_followed() -> None:
    async with foreign(says(http(200, b"secret"))) as inner:
        async with foreign(says(http(307, b"", f"Location: {inner.url}"))) as outer:
            answer = await post(outer.url)
        assert isinstance(answer, Answered)
        assert answer.status == 307
        assert inner.requests == []


async def hang(_: Request, __: Writer) -> None:
    await asyncio.sleep(30)


async def drip(_: Request, writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _step in range(1_000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def reset(_: Request, writer: Writer) -> None:
    writer.transport.abort()


async def end(_: Request, __: Writer) -> None:
    return


async def garbage(_: Request, writer: Writer) -> None:
    writer.write(b"\x00\xff SSH-2.0-OpenSSH\r\n\r\n")


async def cut(_: Request, writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


@pytest.mark.parametrize("behave", [hang, drip, reset, end, garbage, cut])
async def test_what_is_no_answer_is_told_from_what_was_not_sent(
    behave: Callable[[Request, Writer], object],
) -> None:
    async with foreign(behave) as server:  # type: ignore[arg-type]
        answer = await post(server.url)
        assert isinstance(answer, NoAnswer)
        assert answer.reason
        assert len(server.requests) == 1


async def test_a_body_that_never_ends_is_cut_off() -> None:
    written = 0

    async def endless(_: Request, writer: Writer) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()
            written += 0x10000

    async with foreign(endless) as server:
        answer = await post(server.url)
    assert isinstance(answer, Answered)
    assert len(answer.body) == MAX_BODY_BYTES + 1
    assert written < 100 * MAX_BODY_BYTES


async def test_a_compressed_bomb_is_not_unpacked() -> None:
    async with foreign(
        says(http(200, b"\x1f\x8b" + b"0" * 50, "Content-Encoding: gzip"))
    ) as server:
        answer = await post(server.url)
    assert isinstance(answer, Answered)
    assert answer.body.startswith(b"\x1f\x8b")
    assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_where_nobody_listens_nothing_was_sent() -> None:
    answer = await post(f"http://127.0.0.1:{free_port()}/hook")
    assert isinstance(answer, NotSent)


class Names:
    """A resolver whose answers are made up, one after another."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0)


@pytest.mark.parametrize(
    "addresses",
    [["10.0.0.1"], ["169.254.169.254"], ["8.8.8.8", "192.168.0.1"], ["::ffff:10.0.0.1"], ["::1"]],
)
async def test_a_name_that_leads_inside_is_refused_whole(addresses: list[str]) -> None:
    names = Names(addresses)
    answer = await post("https://hook.example/", WebhookPolicy(), resolver=names)
    assert isinstance(answer, NotSent)
    assert "neither public nor" in answer.reason
    assert not any(address in answer.reason for address in addresses), "it tells nothing of us"


async def test_plain_http_to_a_public_address_is_refused_in_a_lab_too() -> None:
    answer = await post("http://hook.example/", resolver=Names(["8.8.8.8"]))
    assert isinstance(answer, NotSent)
    assert "http is for loopback only" in answer.reason


async def test_a_name_is_asked_for_once_and_what_was_checked_is_connected_to() -> None:
    """A second answer that leads elsewhere (rebinding) is never asked for."""
    async with foreign(says(http(200, ACCEPTED))) as good:
        names = Names(["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1"])
        url = f"http://hook.example:{good.port}/hook?a=b"
        async with Link(FAST, resolver=names) as link:
            first = await link.exchange("POST", url, headers={}, body=b"{}")
            assert isinstance(first, Answered)
            assert names.asked == [("hook.example", good.port)]
            moved = await link.exchange("POST", url, headers={}, body=b"{}")
            assert isinstance(moved, NotSent)
            assert len(names.asked) == 2
            assert len(good.requests) == 1
            assert isinstance(await link.exchange("POST", url, headers={}), Answered)
    assert good.requests[0].headers["host"] == f"hook.example:{good.port}"
    assert good.requests[0].head.startswith("POST /hook?a=b ")


async def test_the_next_address_is_tried_where_one_takes_no_connection() -> None:
    async with foreign(says(http(200, ACCEPTED))) as good:
        names = Names(["127.9.9.9", "127.0.0.1"])
        answer = await post(f"http://hook.example:{good.port}/", resolver=names)
    assert isinstance(answer, Answered)


async def test_a_resolver_that_fails_or_hangs_is_no_accident() -> None:
    async def fails(_host: str, _port: int) -> list[str]:
        raise OSError("no such name")

    async def hangs(_host: str, _port: int) -> list[str]:
        await asyncio.sleep(30)
        return []

    async def nothing(_host: str, _port: int) -> list[str]:
        return []

    for resolver in (fails, hangs, nothing):
        assert isinstance(await post("https://hook.example/", resolver=resolver), NotSent)


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for a host name, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / f"{name}.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem + made.public_bytes(Encoding.PEM))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(path)
    client = ssl.create_default_context()
    client.load_verify_locations(cadata=made.public_bytes(Encoding.PEM).decode())
    return server, client


async def test_tls_is_verified_against_the_name_not_against_the_address(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "hook.example")
    seen: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: seen.append(name)
    async with foreign(says(http(200, ACCEPTED)), ssl=server) as good:
        for host, kind in (("hook.example", Answered), ("other.example", NotSent)):
            names = Names(["127.0.0.1"])
            answer = await post(f"https://{host}:{good.port}/", resolver=names, tls=client)
            assert type(answer) is kind, answer
        untrusted = await post(f"https://hook.example:{good.port}/", resolver=Names(["127.0.0.1"]))
        assert isinstance(untrusted, NotSent)
        assert "certificate" in untrusted.reason.lower()
    assert seen[:2] == ["hook.example", "other.example"]
    assert len(good.requests) == 1
