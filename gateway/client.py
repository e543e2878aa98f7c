"""A client of Flexway's own API, for commands that drive a running service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx

from marketplace_core.errors import RequestError

_IN_PAGES: Final = frozenset({"lines", "messages", "rows"})
"""Members of an object that come in pages."""


class Client:
    """One organisation's view of the API. Raises RequestError with the problem's words.

    Where a method takes a `key` (Idempotency-Key), a repeat with the same key changes nothing
    and gets the answer of the first.
    """

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60.0
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def register_assets(self, assets: Sequence[Mapping[str, Any]], *, key: str = "") -> Any:
        """Register or update assets."""
        return self._call("PUT", "/v1/assets", json=list(assets), headers=_once(key))

    def import_readings(self, csv_text: str, *, key: str = "") -> Any:
        """Import meter history; the answer lists rows that were refused."""
        headers = {"Content-Type": "text/csv", **_once(key)}
        content = csv_text.encode()
        return self._call("POST", "/v1/readings/import", content=content, headers=headers)

    def publish_need(self, need: Mapping[str, Any], *, key: str = "") -> Any:
        """Publish a need."""
        return self._call("POST", "/v1/needs", json=need, headers=_once(key))

    def bid(self, need_id: str, bid: Mapping[str, Any], *, key: str = "") -> Any:
        """Bid on a need."""
        return self._call("POST", f"/v1/needs/{need_id}/bids", json=bid, headers=_once(key))

    def clear(self, need_id: str, *, key: str = "") -> Any:
        """Clear a need's auction."""
        return self._call("POST", f"/v1/needs/{need_id}/clear", headers=_once(key))

    def contracts(self, need_id: str) -> Any:
        """Contracts of a need that this organisation is a side of."""
        return self.get(f"/v1/needs/{need_id}/contracts")

    def sign(self, contract_id: str, *, key: str = "") -> Any:
        """Sign a contract."""
        return self._call("POST", f"/v1/contracts/{contract_id}/sign", headers=_once(key))

    def submit_order(self, order: Mapping[str, Any], *, key: str) -> Any:
        """Submit an order."""
        return self._call("POST", "/v1/orders", json=order, headers=_once(key))

    def register_webhook(self, url: str, events: Sequence[str], *, key: str = "") -> Any:
        """Say where this organisation is told of things; the answer holds the secret."""
        body = {"url": url, "events": list(events)}
        return self._call("POST", "/v1/webhooks", json=body, headers=_once(key))

    def get(self, path: str, **params: str) -> Any:
        """Read any resource; a list is read to its end."""
        found, following = self._page(path, params)
        while following is not None:
            more, following = self._page(following, None)
            _append(found, more)
        return found

    def _page(self, path: str, params: Mapping[str, str] | None) -> tuple[Any, str | None]:
        response = self._send("GET", path, params=params)
        return response.json(), response.links.get("next", {}).get("url")

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        return self._send(method, path, **arguments).json()

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        response = self._request(method, path, **arguments)
        if response.is_success:
            return response
        raise RequestError(f"{method} {path}: {response.status_code} {response.text}")

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return self._http.request(method, path, **arguments)


def _append(found: Any, more: Any) -> None:
    """Add a page to those before; of an object only the list in it is cut into pages."""
    if isinstance(found, list):
        found += more
        return
    for name in _IN_PAGES & found.keys():
        found[name] += more[name]


def _once(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}
