"""Clients, access tokens, API keys: who passes, who does not, and what is never kept."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from fastapi import HTTPException

from config.writing import to_toml
from gateway.api.auth import AccessClaim, Authenticator, FailedLogins, Principal
from gateway.cli.client import client
from gateway.credentials import Signer, new_client, split_key
from gateway.reads import Reads
from gateway.store.clients import add_client, revoke_client
from gateway.store.engine import migrate, open_engine
from tests.harness.api import ASSET, by, service
from tests.unit.gateway.conftest import SteppingClock

FORM = {"grant_type": "client_credentials"}


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with service(tmp_path, failed_logins=5) as made:
        yield made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "flexway.toml"
    path.write_text(
        to_toml({"lab": True, "store": {"database": f"sqlite:///{tmp_path}/market.db"}})
    )
    return path


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(client, [arguments[0], "--config", str(config), *arguments[1:]])


def add(config: Path, *more: str, role: str = "seller", organisation: str = "org_new") -> list[str]:
    done = run(config, "add", "--organisation", organisation, "--role", role, *more)
    assert done.exit_code == 0, done.output
    return [line.split()[1] for line in done.output.splitlines()[:2]]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(name: str, secret: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{secret}'.encode()).decode()}"}


async def test_client_credentials_give_a_token_that_works(
    http: httpx.AsyncClient, config: Path
) -> None:
    name, secret = add(config)
    in_form = {**FORM, "client_id": name, "client_secret": secret}
    for data, headers in ((FORM, basic(name, secret)), (in_form, {})):
        answer = await http.post("/oauth/token", data=data, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert (body["token_type"], body["scope"], body["expires_in"]) == ("Bearer", "seller", 3600)
        put = await http.put("/v1/assets", json=[ASSET], headers=bearer(body["access_token"]))
        assert put.json()[0]["organisation"] == "org_new"


@pytest.mark.parametrize(
    ("data", "error", "status"),
    [
        ({}, "invalid_request", 400),
        ({"grant_type": "password"}, "unsupported_grant_type", 400),
        ({**FORM, "client_secret": "wrong"}, "invalid_client", 401),
        ({**FORM, "client_id": "cli_x", "client_secret": "wrong"}, "invalid_client", 401),
        (FORM, "invalid_client", 401),
    ],
)
async def test_refusals_are_those_of_the_rfc(
    http: httpx.AsyncClient, data: dict[str, str], error: str, status: int
) -> None:
    answer = await http.post("/oauth/token", data=data)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


async def test_malformed_token_requests_are_refused(http: httpx.AsyncClient, config: Path) -> None:
    name, secret = add(config)
    both = await http.post(
        "/oauth/token", data={**FORM, "client_secret": secret}, headers=basic(name, secret)
    )
    wrong_type = await http.post("/oauth/token", json=FORM, headers=basic(name, secret))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    twice = await http.post("/oauth/token", content="grant_type=a&grant_type=b", headers=form)
    scope = await http.post(
        "/oauth/token", data={**FORM, "scope": "operator"}, headers=basic(name, secret)
    )
    found = [each.json()["error"] for each in (both, wrong_type, twice, scope)]
    assert found == ["invalid_request", "invalid_request", "invalid_request", "invalid_scope"]
    garbled = await http.post("/oauth/token", data=FORM, headers={"Authorization": "Basic %%%"})
    assert garbled.status_code == 401
    assert garbled.headers["www-authenticate"].startswith("Basic")


async def test_a_revoked_client_is_out_at_once_with_its_tokens(
    http: httpx.AsyncClient, config: Path
) -> None:
    name, secret = add(config)
    _, key = add(config, "--api-key")
    answer = await http.post("/oauth/token", data=FORM, headers=basic(name, secret))
    token = answer.json()["access_token"]
    for each in (token, key):
        assert (await http.get("/v1/assets", headers=bearer(each))).status_code == 200
    listed = run(config, "list").output
    assert name in listed
    assert secret not in listed
    for client_id in (name, split_key(key)[0]):
        assert run(config, "revoke", client_id).exit_code == 0
    for each in (token, key):
        assert (await http.get("/v1/assets", headers=bearer(each))).status_code == 401
    refused = await http.post("/oauth/token", data=FORM, headers=basic(name, secret))
    assert refused.status_code == 401
    assert run(config, "revoke", name).exit_code == 1


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


async def test_a_secret_is_kept_nowhere(
    http: httpx.AsyncClient, config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, secret = add(config)
    _, key = add(config, "--api-key")
    await http.get("/v1/assets", headers=bearer(key))
    await http.post("/oauth/token", data=FORM, headers=basic(name, secret))
    await http.post("/oauth/token", data={**FORM, "client_id": name, "client_secret": "guess-me"})
    kept = everything_in(tmp_path)
    said = "".join(capfd.readouterr())
    for word in (secret.removeprefix("fws_"), split_key(key)[1], "guess-me"):
        assert word.encode() not in kept
        assert word not in said


async def test_guessing_is_slowed_down_and_harms_no_one_else(http: httpx.AsyncClient) -> None:
    codes = [
        (await http.get("/v1/assets", headers=bearer(f"fwk_01ABC_guess{n}"))).status_code
        for n in range(7)
    ]
    assert codes == [401] * 5 + [429] * 2
    late = await http.post(
        "/oauth/token", data={**FORM, "client_id": "cli_x", "client_secret": "guess"}
    )
    assert late.status_code == 429
    assert 0 < int(late.headers["retry-after"]) <= 60
    assert (await http.get("/v1/assets", headers=by("org_s"))).status_code == 200


async def test_a_read_only_client_writes_nothing(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    writes = [
        (method, path) for path, item in document["paths"].items() for method in item
        if method != "get" and path.startswith("/v1")
    ]  # fmt: skip
    bodies: dict[str, Any] = {"json": {}}
    assert len(writes) > 15
    for method, path in writes:
        answer = await http.request(
            method, re.sub(r"[{}]", "", path), headers=by("org_r"), **bodies
        )
        # 422: the body was looked at first, and is wrong.
        assert answer.status_code in {403, 422}, (method, path)


async def test_the_document_says_how_to_authenticate(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["OAuth2"]["flows"]["clientCredentials"]["tokenUrl"] == "/oauth/token"
    unsafe = {
        path for path, item in document["paths"].items() for operation in item.values()
        if not operation.get("security")
    }  # fmt: skip
    assert unsafe == {"/healthz", "/readyz", "/metrics", "/oauth/token"}


class World:
    """An authenticator over a database of its own, and a clock to turn."""

    def __init__(self, folder: Path) -> None:
        self.engine = open_engine(f"sqlite:///{folder}/market.db")
        migrate(self.engine)
        self.now = 1_000.0
        self.authenticator = Authenticator(
            [], reads=Reads(self.engine, inline=True), signer=Signer(b"a" * 32),
            unix_now=lambda: self.now, failures=FailedLogins(3, lambda: self.now), token_for_s=60.0,
        )  # fmt: skip

    def add(self, kind: str) -> tuple[str, str]:
        row, secret = new_client(
            organisation="org_x", role="buyer", kind=kind, label="",
            new_id=lambda prefix: f"{prefix}_01J", at=SteppingClock().at,
        )  # fmt: skip
        with self.engine.begin() as connection:
            add_client(connection, row)
        return row.id, secret

    async def status(self, token: str, address: str = "a") -> int:
        try:
            await self.authenticator.authenticate(f"Bearer {token}", address)
        except HTTPException as error:
            return error.status_code
        return 200


async def test_an_access_token_expires_and_cannot_be_made_by_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    name, secret = world.add("secret")
    _, token = await world.authenticator.exchange(name, secret, "a")
    found = await world.authenticator.authenticate(f"Bearer {token}", "a")
    assert found == Principal("org_x", "buyer")
    forged = Signer(b"b" * 32).sign(AccessClaim(client=name, expires=2_000.0))
    assert await world.status(f"fwt_{forged}") == 401
    assert await world.status(token[:-2] + "AA") == 401
    world.now += 60.0
    assert await world.status(token) == 401


async def test_a_secret_is_no_key_and_a_key_no_secret(tmp_path: Path) -> None:
    world = World(tmp_path)
    name, secret = world.add("secret")
    assert await world.status(f"fwk_{name.removeprefix('cli_')}_{secret}") == 401


async def test_a_known_key_passes_while_its_address_is_locked_out(tmp_path: Path) -> None:
    world = World(tmp_path)
    name, key = world.add("key")
    assert await world.status(key) == 200
    assert [await world.status(f"{key}x") for _ in range(4)] == [401, 401, 401, 429]
    assert await world.status(key) == 200
    assert await world.status("nobody", "b") == 401
    world.now += 61.0
    assert await world.status(f"{key}x") == 401
    with world.engine.begin() as connection:
        assert revoke_client(connection, name, SteppingClock().at)
    assert await world.status(key) == 401
