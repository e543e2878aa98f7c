"""Cursor pagination: `limit` and `cursor` in, a page and a `Link` to the next out (RFC 8288)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
from fastapi import Depends, Query, Request, Response

from gateway.api.services import json_response
from gateway.store.paging import Key, Page, Slice
from marketplace_core.errors import RequestError

T = TypeVar("T")
MOST: Final = 200
"""Items on one page at most."""


Cursor = Annotated[
    str | None, Query(max_length=500, description="From the `Link` of the page before")
]


def page_of(
    limit: Annotated[int, Query(ge=1, le=MOST, description="Items on a page")] = MOST,
    cursor: Cursor = None,
) -> Page:
    """FastAPI dependency: which page is asked for."""
    return Page(limit, () if cursor is None else _key(cursor))


Paging = Annotated[Page, Depends(page_of)]


def page_response(
    request: Request, found: Slice[T], show: Callable[[T], object] | None = None
) -> Response:
    """A page as a JSON array; `Link: <...>; rel="next"` leads to the next page if there is one."""
    items: Sequence[Any] = found.items if show is None else [show(item) for item in found.items]
    return with_next(json_response(items), request, found.following)


def with_next(response: Response, request: Request, following: Key | None) -> Response:
    """Add the link to the next page to a response."""
    if following is not None:
        url = request.url.include_query_params(cursor=_cursor(following))
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return response


def _cursor(key: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode()


def _key(cursor: str) -> Key:
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(data, type=tuple[str | int, ...])
    except ValueError as error:
        raise RequestError(
            f"{cursor[:80]!r} is no cursor", field="cursor",
            rule="a cursor is taken from the Link of the page before",
            remedy="start without a cursor",
        ) from error  # fmt: skip
