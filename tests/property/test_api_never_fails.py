"""Whatever is sent to whichever route, the service answers, and never with a 500."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness.api import ROLES, awarded_need, by, order, service

pytestmark = [pytest.mark.slow]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=30),
    st.sampled_from(["2030-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00",
                     "1e400", "-1", "ast-1", "F-1", "UP", "zero", "all", "1" * 40]),
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
WORDS = st.one_of(
    st.text(min_size=1, max_size=20), st.sampled_from(["ast-1", "org_s", "F-1", "x" * 500, "%00"])
)


def shaped(schema: dict[str, Any], document: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that look like what a schema asks for, and are now and then something else."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return shaped(document["components"]["schemas"][name], document)
    if schema.get("properties"):
        parts = {name: shaped(part, document) for name, part in schema["properties"].items()}
        required = {name: parts[name] for name in schema.get("required", parts)}
        return st.one_of(
            st.fixed_dictionaries(required), st.fixed_dictionaries({}, optional=parts), JSON
        )
    likely: st.SearchStrategy[Any] = JSON
    if schema.get("type") == "array":
        likely = st.lists(shaped(schema.get("items", {}), document), max_size=2)
    elif "enum" in schema:
        likely = st.sampled_from(schema["enum"])
    elif schema.get("type") == "number":
        likely = st.floats(0.1, 50)
    elif schema.get("format") == "date-time":
        likely = st.datetimes().map(lambda at: at.isoformat() + "Z")
    return likely | JSON


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture
async def http(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with service(folder, failed_logins=10**6) as made:
        yield made


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, item in sorted(document["paths"].items()) for method, operation in item.items()
        # Suspending everybody would end the test at its first example.
        if not path.endswith("/suspend")
    ]  # fmt: skip


async def test_no_request_is_answered_with_a_500(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    await http.post("/v1/orders", json=order(await awarded_need(http)), headers=by("org_b"))
    requests = examples(document)
    assert len({(method, path) for method, path, _ in requests}) > 45
    failed = []
    for method, path, arguments in requests:
        answer = await http.request(method, path, **arguments)
        if answer.status_code >= 500:
            failed.append((method, path, arguments, answer.text))
    assert failed == []


def examples(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Some requests for every operation; the same ones at every run."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for method, template, operation in operations(document):
        found += drawn(method, template, operation, document)
    return found


def drawn(
    method: str, template: str, operation: dict[str, Any], document: dict[str, Any]
) -> list[tuple[str, str, dict[str, Any]]]:
    found: list[tuple[str, str, dict[str, Any]]] = []

    @settings(
        max_examples=12, database=None, derandomize=True, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        found.append((method, *request(data, template, operation, document)))

    draw()
    return found


def request(
    data: st.DataObject, template: str, operation: dict[str, Any], document: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    path, query = template, {}
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            word = data.draw(WORDS)
            quoted = httpx.QueryParams({"w": word}).__str__()[2:].replace("+", "%20")
            path = path.replace(f"{{{parameter['name']}}}", quoted)
        elif data.draw(st.booleans()):
            query[parameter["name"]] = str(data.draw(shaped(parameter["schema"], document)))
    arguments: dict[str, Any] = {"params": query, "headers": by(data.draw(st.sampled_from(
        sorted(ROLES))))}  # fmt: skip
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        value = data.draw(shaped(content["application/json"]["schema"], document))
        arguments["content"] = json.dumps(value)
        arguments["headers"]["Content-Type"] = "application/json"
    elif content:
        arguments["content"] = data.draw(st.binary(max_size=60))
        arguments["headers"]["Content-Type"] = next(iter(content))
    return path, arguments
