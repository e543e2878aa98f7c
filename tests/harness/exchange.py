"""A market with one of everything: what a foreign organisation must not get to see."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from click.testing import CliRunner
from paho.mqtt import publish

from adapters.mqtt import wire
from gateway.cli.client import client as client_command
from tests.harness.lab import HOST, next_period, token_of, wait_for
from tests.harness.street import MINUTES, SPEED, Street, street

FOREIGN = {"buyer": "org_foreign_buyer", "seller": "org_foreign_seller",
           "readonly": "org_foreign_reader"}  # fmt: skip
"""Organisations that have nothing to do with the market's objects, by role."""
_ID = re.compile(r'"((?:ord|need|bid|ctr|con|stl|spt|dsp|txn|whk)_[0-9A-Z]{26})"')


class Endpoint:
    """A webhook's far end: echoes the challenge, takes everything."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                self._say(query.get("echo", [""])[0].encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._say(b'{"status":"accepted"}')

            def _say(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Exchange:
    """Tokens of everybody and ids of everything."""

    def __init__(self, here: Street) -> None:
        self.here = here
        self.url = here.lab.url
        self.tokens = {
            "buyer": token_of("org_buyer"), "seller": token_of("org_seller"),
            "operator": token_of("org_operator"),
            "buyer's reader": self._key("org_buyer", "readonly"),
            "seller's reader": self._key("org_seller", "readonly"),
        }  # fmt: skip
        for role, organisation in FOREIGN.items():
            self.tokens[f"foreign {role}"] = self._key(organisation, role)
        self.endpoint = Endpoint()
        self.ids: dict[str, str] = {}
        self.secret: set[str] = set()

    def call(self, who: str, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request; `who` is a key of `tokens`, or empty for nobody."""
        headers = dict(arguments.pop("headers", {}))
        if who:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        return httpx.request(method, self.url + path, headers=headers, timeout=60, **arguments)

    def get(self, who: str, path: str) -> Any:
        return self.call(who, "GET", path).json()

    def post(self, who: str, path: str, body: Any) -> Any:
        answer = self.call(who, "POST", path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def fill(self) -> None:
        """Make one of everything: settled, planned, sealed, disputed."""
        here = self.here
        here.await_telemetry()
        need = here.sign_contract(periods=2000, lead_s=5.0)
        hook = {"url": self.endpoint.url, "events": ["order.settled"]}
        hooks = [self.post("seller", "/v1/webhooks", hook)["id"] for _ in range(2)]
        settled = here.submit_span(need, self.span(lead_s=6.0))
        bought = [bid["bid_id"] for bid in self.get("buyer", f"/v1/needs/{need}")["clearing"][
            "awards"]]  # fmt: skip
        undisputed = here.submit_span(need, self.span(lead_s=10.0))
        here.await_state(settled, "settled", seconds=90)
        here.await_state(undisputed, "settled", seconds=90)
        planned = here.submit_span(need, self.span(lead_s=2000.0))
        doomed = here.submit_span(need, self.span(lead_s=2500.0))
        here.await_state(planned, "planned")
        here.await_state(doomed, "planned")
        open_need = self._need("buyer")
        sealed = self._bid("seller", open_need)
        to_clear = self._need("buyer")
        self._bid("seller", to_clear)
        line = self.get("buyer", f"/v1/orders/{settled}/statement")[0]["id"]
        dispute = self.post("seller", "/v1/disputes", {"line_id": line, "reason": "too low"})["id"]
        self._find_fault()
        self._await_something("seller", f"/v1/webhooks/{hooks[0]}/deliveries")
        self.post("operator", "/v1/organisations", {"id": "org_spare", "name": "Spare"})
        tree = [{"id": "US", "name": "US", "level": "country"},
                {"id": "F-114", "name": "F-114", "level": "feeder", "parent": "US"}]  # fmt: skip
        assert self.call("operator", "PUT", "/v1/locations", json=tree).is_success
        self.ids = {
            "need": need, "open_need": open_need, "to_clear": to_clear,
            "undisputed": undisputed, "hook": hooks[0], "doomed_hook": hooks[1],
            "order": settled, "planned": planned,
            "doomed": doomed, "bid": sealed, "dispute": dispute, "line": line,
            "contract": self.get("seller", "/v1/contracts")[0]["id"], "asset": "ast-bat-1",
            "device": "bat-1", "awarded_bid": bought[0],
        }  # fmt: skip
        self.secret = self._secret()

    def _find_fault(self) -> None:
        """A finding about a device of the seller: it says something that is no telemetry."""
        topic = wire.topic("org_seller", "ev-1", "telemetry")
        port = self.here.lab.sections["mqtt"]["port"]
        publish.single(topic, b"\xc1", qos=1, hostname=HOST, port=port)
        self._await_something("seller", "/v1/flags")

    def _await_something(self, who: str, path: str) -> None:
        wait_for(lambda: bool(self.get(who, path)), seconds=20, what=path, every_s=0.2)

    def _secret(self) -> set[str]:
        """Every id that only the sides of it may see."""
        own = [
            self.get(who, path)
            for who in ("buyer", "seller")
            for path in (
                "/v1/assets", "/v1/webhooks", "/v1/bids", "/v1/contracts", "/v1/orders",
                "/v1/disputes",
                f"/v1/webhooks/{self.ids['hook']}/deliveries",
                f"/v1/orders/{self.ids['order']}", f"/v1/orders/{self.ids['planned']}",
            )
        ]  # fmt: skip
        found = set(_ID.findall(json.dumps(own)))
        found |= {"ast-bat-1", "ast-ev-1", "bat-1", "ev-1"}
        public = {self.ids[each] for each in ("need", "open_need", "to_clear", "awarded_bid")}
        # Clearing publishes what was bid: the need that a row clears hides nothing for long.
        public |= {
            bid["id"] for bid in self.get("seller", f"/v1/bids?need_id={self.ids['to_clear']}")
        }
        return found - public

    def _need(self, who: str) -> str:
        body = {"feeder": "F-114", "direction": "UP", "kw": 1.0, "window": self.span(9e3),
                "price_cap": "600", "currency": "USD", "baseline": "zero"}  # fmt: skip
        made: str = self.post(who, "/v1/needs", body)["id"]
        return made

    def _bid(self, who: str, need: str) -> str:
        body = {"assets": ["ast-bat-1"], "kw": 1.0, "utilisation_price": "300"}
        made: str = self.post(who, f"/v1/needs/{need}/bids", body)["id"]
        return made

    def span(self, lead_s: float) -> dict[str, str]:
        """One settlement period that begins in so many wall seconds."""
        at = self.here.lab.market_now() + timedelta(seconds=lead_s * SPEED)
        start = next_period(at, MINUTES)
        end = start + timedelta(minutes=MINUTES)
        return {"start": start.isoformat(), "end": end.isoformat()}

    def _key(self, organisation: str, role: str) -> str:
        """An API key as `flexway client add` gives it out while the service runs."""
        made = CliRunner().invoke(
            client_command,
            ["add", "--config", str(self.here.lab.settings_file), "--organisation", organisation,
             "--role", role, "--api-key"],
        )  # fmt: skip
        assert made.exit_code == 0, made.output
        found = re.search(r"fwk_\S+", made.output)
        assert found is not None
        return found[0]


@contextmanager
def exchange(folder: Path) -> Iterator[Exchange]:
    """The running service with one of everything in it."""
    with street(folder) as here:
        gateway = here.lab.start()
        try:
            made = Exchange(here)
            made.fill()
            yield made
            made.endpoint.close()
        finally:
            gateway.stop()
