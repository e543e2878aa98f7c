"""Nobody sees or moves what is not theirs: every route of the OpenAPI document, every role.

Each route has a row: who owns what it shows, what to send, what strangers get. A route
without a row fails, and so does a row without a route. For each, strangers of every role
ask first, for the owner's objects; then the owner's own reader; then the owner, who must
get something: else the refusals would prove nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.routing import WebSocketRoute
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from config.loading import load_settings
from gateway.bootstrap import build
from tests.harness.exchange import FOREIGN, Exchange, exchange

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(300)]
REFUSED = frozenset({401, 403, 404})
Body = Callable[[Exchange], Any]
Ids = Mapping[str, str]
YEAR = {"from": "2017-01-01T00:00:00Z", "to": "2018-01-01T00:00:00Z"}
DAY = {"start": "2017-07-20T00:00:00Z", "end": "2017-07-22T00:00:00Z"}
CSV = "id,feeder,technology,devices,meter,measurement_point,up_kw,down_kw\n"


def something(answer: httpx.Response) -> bool:
    """Whether an answer holds anything at all."""
    if not answer.headers["content-type"].startswith("application/json"):
        return len(answer.text.splitlines()) > 1
    body = answer.json()
    return any(value not in ([], None, "") for value in body.values()) if isinstance(
        body, dict
    ) else bool(body)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One route."""

    owner: str
    path: Ids = field(default_factory=dict)
    """Path parameter -> name of the owner's object."""
    body: Body | None = None
    text: str = ""
    query: Ids = field(default_factory=dict)
    strangers: frozenset[int] = REFUSED
    """Statuses that a stranger may get."""
    public: bool = False
    """Everybody with a token may see it."""
    anybody: bool = False
    """No token is needed."""
    proves: Callable[[httpx.Response], bool] = something
    """Whether the owner's answer shows that there is something to hide."""
    nothing: Callable[[Any], bool] = lambda _: True
    """Whether a stranger's answer of 2xx did nothing."""


def listing(owner: str, **more: Any) -> Row:
    """A list: a stranger gets its own, which is nothing of the owner's."""
    return Row(owner, strangers=REFUSED | {200}, **more)


def line_of(market: Exchange, order: str) -> str:
    lines = market.get("buyer", f"/v1/orders/{market.ids[order]}/statement")
    line_id: str = lines[-1]["id"]
    return line_id


def of(path: str, name: str) -> Ids:
    return {path: name}


ORDER, CONTRACT = of("order_id", "order"), of("contract_id", "contract")
ASSET = {"id": "ast-bat-1", "feeder": "F-114", "technology": "any", "devices": ["bat-1"],
         "meter": "bat-1", "measurement_point": "device", "up_kw": 5.0}  # fmt: skip
NEED = {"feeder": "F-1", "direction": "UP", "kw": 1.0, "price_cap": "1", "currency": "USD"}
REFUSED_ROW = frozenset({403, 200})
ROWS: dict[str, Row] = {
    "GET /healthz": Row("operator", anybody=True),
    "GET /readyz": Row("operator", anybody=True),
    "GET /metrics": Row("operator", anybody=True),
    "POST /oauth/token": Row("operator", anybody=True),
    "GET /v1/devices": listing("seller"),
    "GET /v1/devices/{device_id}": Row("seller", of("device_id", "device")),
    "GET /v1/quarantine": Row("operator", strangers=frozenset({403})),
    "GET /v1/journal": listing("buyer"),
    "GET /v1/journal/verification": Row("operator", strangers=frozenset({403})),
    "GET /v1/organisations": listing("buyer"),
    "POST /v1/organisations": Row(
        "operator", body=lambda _: {"id": "org_new", "name": "New"}, strangers=frozenset({403})
    ),
    "GET /v1/organisations/{organisation_id}": Row(
        "buyer", of("organisation_id", "org_buyer"), strangers=frozenset({404})
    ),
    "POST /v1/organisations/{organisation_id}/suspend": Row(
        "operator", of("organisation_id", "org_spare"), body=lambda _: {"reason": "test"}
    ),
    "POST /v1/organisations/{organisation_id}/reinstate": Row(
        "operator", of("organisation_id", "org_spare")
    ),
    "PUT /v1/locations": Row(
        "operator", body=lambda _: [{"id": "US", "name": "US", "level": "country"}]
    ),
    "GET /v1/locations": Row("buyer", public=True),
    "GET /v1/locations/{location_id}": Row("seller", of("location_id", "F-114"), public=True),
    "PUT /v1/assets": Row("seller", body=lambda _: [ASSET], strangers=REFUSED | {422}),
    "GET /v1/assets": listing("seller"),
    "GET /v1/assets/export": listing("seller"),
    "POST /v1/assets/import": Row(
        "seller", text=CSV + "ast-bat-1,F-114,any,bat-1,bat-1,device,5,0\n",
        strangers=REFUSED_ROW, nothing=lambda body: body["accepted"] == 0,
    ),
    "GET /v1/assets/{asset_id}": Row("seller", of("asset_id", "asset")),
    "POST /v1/needs": Row("buyer", body=lambda e: {**NEED, "window": e.span(9e3)}, public=True),
    "GET /v1/needs": Row("buyer", public=True),
    "GET /v1/needs/{need_id}": Row("buyer", of("need_id", "need"), public=True),
    "POST /v1/needs/{need_id}/bids": Row(
        "seller", of("need_id", "open_need"), strangers=REFUSED | {422},
        body=lambda _: {"assets": ["ast-bat-1"], "kw": 1.0, "utilisation_price": "1"},
    ),
    "POST /v1/needs/{need_id}/clear": Row("buyer", of("need_id", "to_clear")),
    "GET /v1/needs/{need_id}/contracts": listing("buyer", path=of("need_id", "need")),
    "GET /v1/bids": listing("seller"),
    "GET /v1/bids/{bid_id}": Row("seller", of("bid_id", "bid")),
    "GET /v1/auctions": Row("buyer", public=True),
    "GET /v1/auctions/{need_id}": Row("buyer", of("need_id", "need"), public=True),
    "GET /v1/contracts": listing("seller"),
    "GET /v1/contracts/{contract_id}": Row("seller", CONTRACT),
    "GET /v1/contracts/{contract_id}/deliveries": Row("seller", CONTRACT),
    "POST /v1/contracts/{contract_id}/sign": Row("seller", CONTRACT),
    "POST /v1/orders/dry-run": Row(
        "buyer",
        body=lambda e: {"need_id": e.ids["need"], "kw": 1.0, "interval": e.span(3e3)},
    ),
    "POST /v1/orders/{order_id}/stop": Row(
        "buyer", of("order_id", "doomed"), body=lambda _: {"reason": "test"}
    ),
    "POST /v1/emergency-stop": Row(
        "buyer", strangers=frozenset({403, 200}),
        body=lambda _: {"scope": {"kind": "feeder", "id": "F-114"}, "reason": "test"},
        proves=lambda answer: bool(answer.json()["outcomes"] and answer.json()["orders"]),
        nothing=lambda body: body["outcomes"] == [] and body["orders"] == [],
    ),
    "POST /v1/orders": Row(
        "buyer",
        body=lambda e: {"need_id": e.ids["need"], "kw": 1.0, "interval": e.span(3.5e3)},
    ),
    "GET /v1/orders": listing("buyer"),
    "GET /v1/orders/{order_id}": Row("buyer", ORDER),
    "GET /v1/orders/{order_id}/facts": Row("buyer", ORDER),
    "GET /v1/orders/{order_id}/deliveries": Row("seller", ORDER),
    "GET /v1/orders/{order_id}/statement": Row("seller", ORDER),
    "WEBSOCKET /v1/orders/{order_id}/stream": Row("buyer", ORDER),
    "POST /v1/readings": Row(
        "seller", strangers=REFUSED_ROW, nothing=lambda body: body["accepted"] == 0,
        body=lambda _: [{"series": "bat-1", "start": "2017-01-01T00:00:00Z", "seconds": 60,
                         "power_kw": 1}],
        proves=lambda answer: bool(answer.json()["accepted"]),
    ),
    "POST /v1/readings/import": Row(
        "seller", strangers=REFUSED_ROW, nothing=lambda body: body["accepted"] == 0,
        text="series,start_utc,seconds,power_kw\nbat-1,2017-01-02T00:00:00Z,60,1\n",
        proves=lambda answer: bool(answer.json()["accepted"]),
    ),
    "GET /v1/readings/{series}": Row(
        "seller", of("series", "device"), query=DAY,
        proves=lambda answer: bool(answer.json()["rows"]),
    ),
    "GET /v1/statements": listing(
        "seller", query=YEAR, proves=lambda answer: bool(answer.json()["lines"])
    ),
    "POST /v1/disputes": Row(
        "buyer", strangers=frozenset({403, 404}),
        body=lambda e: {"line_id": line_of(e, "undisputed"), "reason": "mine"},
    ),
    "GET /v1/flags": listing("seller"),
    "GET /v1/webhooks": listing("seller"),
    "POST /v1/webhooks": Row(
        "seller", body=lambda e: {"url": e.endpoint.url, "events": ["order.settled"]}, public=True
    ),
    "DELETE /v1/webhooks/{webhook_id}": Row(
        "seller", of("webhook_id", "doomed_hook"), proves=lambda answer: answer.status_code == 204
    ),
    "POST /v1/webhooks/{webhook_id}/rotate": Row("seller", of("webhook_id", "hook")),
    "POST /v1/webhooks/{webhook_id}/test": Row("seller", of("webhook_id", "hook")),
    "GET /v1/webhooks/{webhook_id}/deliveries": Row(
        "seller", of("webhook_id", "hook")
    ),
    "GET /v1/disputes": listing("seller"),
    "GET /v1/disputes/{dispute_id}": Row("buyer", of("dispute_id", "dispute")),
    "POST /v1/disputes/{dispute_id}/resolve": Row(
        "operator", of("dispute_id", "dispute"), strangers=frozenset({403}),
        body=lambda _: {"accept": False, "reason": "it is right"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    with exchange(tmp_path_factory.mktemp("exchange")) as made:
        yield made


@pytest.fixture(scope="module")
def routes(market: Exchange, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every route of the service, from its OpenAPI document and its web sockets."""
    folder = tmp_path_factory.mktemp("document")
    settings = load_settings(market.here.lab.settings_file)
    readings = type(settings.store.readings)(folder / "readings.db")
    store = settings.store.model_copy(
        update={"database": f"sqlite:///{folder}/market.db", "readings": readings}
    )
    application = build(settings.model_copy(update={"store": store}))
    try:
        document = application.api.openapi()
        served = market.get("operator", "/openapi.json")
        assert served["paths"].keys() == document["paths"].keys()
        return routes_of(document) | {
            f"WEBSOCKET {route.path}" for route in websockets_of(application.api)
        }
    finally:
        application.listener.close()


def websockets_of(router: Any) -> Iterator[WebSocketRoute]:
    """Web sockets, which the document does not show, of a router and all that it includes."""
    for route in router.routes:
        if isinstance(route, WebSocketRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from websockets_of(route.original_router)


def routes_of(document: Mapping[str, Any]) -> set[str]:
    return {
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item
    }


def leaks(text: str, secret: set[str], sent: str) -> set[str]:
    """Ids that an answer gives away: what the caller sent itself is no news to it."""
    return {each for each in secret if each in text and each not in sent}


def ask(market: Exchange, who: str, route: str, row: Row) -> tuple[httpx.Response, str]:
    """Ask as somebody; return the answer and all that was sent."""
    method, _, template = route.partition(" ")
    names = {name: market.ids.get(key, key) for name, key in row.path.items()}
    path = template.format(**names)
    arguments: dict[str, Any] = {"params": dict(row.query)}
    if row.text:
        arguments["content"] = row.text
    elif row.body is not None:
        arguments["json"] = row.body(market)
    sent = path + json.dumps(arguments)
    return market.call(who, method, path, **arguments), sent


def test_every_route_has_a_row_and_every_row_a_route(routes: set[str]) -> None:
    assert routes - ROWS.keys() == set(), "add a row: who owns it, what do strangers get?"
    assert ROWS.keys() - routes == set(), "there is no such route any more"


HTTP = [route for route in ROWS if not route.startswith("WEBSOCKET")]


@pytest.mark.parametrize("route", HTTP)
def test_strangers_get_nothing_and_the_owner_gets_something(market: Exchange, route: str) -> None:
    row = ROWS[route]
    if row.anybody:
        answer, sent = ask(market, "", route, row)
        assert answer.status_code < 500
        assert leaks(answer.text, market.secret, sent) == set()
        return
    nobody, _ = ask(market, "", route, row)
    assert nobody.status_code == 401
    for role in FOREIGN:
        answer, sent = ask(market, f"foreign {role}", route, row)
        allowed = row.strangers | ({200, 201} if row.public else set())
        assert answer.status_code in allowed, (role, answer.status_code, answer.text)
        assert leaks(answer.text, market.secret, sent) == set(), role
        if answer.is_success:
            assert row.nothing(answer.json() if "json" in answer.headers["content-type"] else None)
    check_reader(market, route, row)
    owner, _ = ask(market, row.owner, route, row)
    assert owner.is_success, owner.text
    assert row.proves(owner), owner.text


def check_reader(market: Exchange, route: str, row: Row) -> None:
    """A read-only client of the owner sees what the owner sees and moves nothing."""
    if row.owner == "operator":
        return
    answer, _ = ask(market, f"{row.owner}'s reader", route, row)
    if route.startswith("GET"):
        assert answer.is_success, answer.text
        assert row.proves(answer), answer.text
    else:
        assert answer.status_code == 403, answer.text


def test_a_stream_opens_for_its_owner_only(market: Exchange) -> None:
    path = market.url.replace("http", "ws") + f"/v1/orders/{market.ids['order']}/stream"
    for who in ("", "seller", *(f"foreign {role}" for role in FOREIGN)):
        headers = {"Authorization": f"Bearer {market.tokens[who]}"} if who else {}
        with pytest.raises(InvalidStatus) as refused, connect(path, additional_headers=headers):
            pass
        assert refused.value.response.status_code == 403
        assert leaks((refused.value.response.body or b"").decode(), market.secret, path) == set()
    for who in ("buyer", "buyer's reader", "operator"):
        headers = {"Authorization": f"Bearer {market.tokens[who]}"}
        with connect(path, additional_headers=headers) as stream:
            hello = json.loads(stream.recv(timeout=10))
            assert (hello["type"], hello["order_id"]) == ("hello", market.ids["order"])


def test_what_is_foreign_looks_like_what_is_not_there(market: Exchange) -> None:
    for noun, ending in (("orders", ""), ("orders", "/facts"), ("contracts", ""), ("bids", ""),
                         ("disputes", ""), ("assets", ""), ("devices", "")):  # fmt: skip
        theirs = market.ids[{"orders": "order"}.get(noun, noun[:-1])]
        missing = theirs[:-4] + "ZZZZ"
        who = "foreign seller"
        foreign = market.call(who, "GET", f"/v1/{noun}/{theirs}{ending}")
        unknown = market.call(who, "GET", f"/v1/{noun}/{missing}{ending}")
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.text.replace(theirs, missing) == unknown.text


def test_a_sealed_bid_is_nobodys_but_its_sellers(market: Exchange) -> None:
    need = market.ids["open_need"]
    bid = market.ids["bid"]
    assert market.get("buyer", f"/v1/needs/{need}")["state"] == "open"
    for who in ("buyer", "foreign seller", "foreign buyer"):
        for path in ("/v1/bids", f"/v1/needs/{need}", f"/v1/journal?stream={need}", "/v1/journal"):
            assert bid not in market.call(who, "GET", path).text, (who, path)
    assert bid in market.call("seller", "GET", f"/v1/journal?stream={need}").text


def test_a_suspended_organisation_is_shut_out_everywhere(market: Exchange) -> None:
    name = FOREIGN["readonly"]
    why = {"reason": "unpaid"}
    market.post("operator", f"/v1/organisations/{name}/suspend", why)
    try:
        for route in HTTP:
            if not ROWS[route].anybody:
                answer, _ = ask(market, "foreign readonly", route, ROWS[route])
                assert answer.status_code == 403, route
    finally:
        market.post("operator", f"/v1/organisations/{name}/reinstate", {})
    assert market.call("foreign readonly", "GET", "/v1/needs").status_code == 200


def test_a_route_without_a_row_is_caught() -> None:
    document = {"paths": {"/v1/secrets/{id}": {"get": {}, "post": {}}}}
    assert routes_of(document) - ROWS.keys() == {
        "GET /v1/secrets/{id}", "POST /v1/secrets/{id}",
    }  # fmt: skip


def test_a_leak_is_caught() -> None:
    secret = {"ord_A", "ast-1"}
    assert leaks('[{"id":"ord_A"}]', secret, "/v1/orders") == {"ord_A"}
    assert leaks('{"detail":"asset ast-1 is taken"}', secret, "") == {"ast-1"}
    assert leaks('{"detail":"there is no order ord_A"}', secret, "/v1/orders/ord_A") == set()
