"""The live stream of an order over a WebSocket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Depends, HTTPException, WebSocket, WebSocketDisconnect
from sqlalchemy import Connection

from gateway.api.auth import address_of
from gateway.api.services import Services, services_of
from gateway.store.journal import read_streams
from gateway.store.viewer import Viewer
from gateway.store.visible import order_of_buyer
from gateway.streams import Subscriber
from marketplace_core.errors import NotFoundError
from marketplace_core.events import OrderPlanned

router = APIRouter(prefix="/v1", tags=["orders"])
PROTOCOL: Final = "flexway.v1"
_BEARER: Final = "bearer."
"""A browser cannot send the header: it offers `bearer.` and the token in URL-safe base 64."""
TOO_SLOW: Final = 1013
"""Close code `try again later`: the reader did not keep up."""
NOT_ALLOWED: Final = 1008
"""Close code `policy violation`: the token is not (or no longer) good, or there is no order."""
_CHECK_S: Final = 30.0
"""Wall seconds between two looks at whether the reader may still listen."""
_FAREWELL_S: Final = 2.0


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello", tag_field="type"):
    """First message: what follows is what happens from here on."""

    order_id: str
    state: str


class Dropped(msgspec.Struct, frozen=True, kw_only=True, tag="dropped", tag_field="type"):
    """Last message for a reader that did not keep up."""

    reason: str = "you read too slowly: connect again, and read /facts for what you missed"


@router.websocket("/orders/{order_id}/stream")
async def stream_order(
    socket: WebSocket, order_id: str, services: Annotated[Services, Depends(services_of)]
) -> None:
    """Facts of one of the caller's own orders, and its devices' power per settlement period."""
    try:
        viewer = await _viewer(socket, services)
        row = await services.read(lambda c: order_of_buyer(c, viewer, order_id))
    except (HTTPException, NotFoundError) as error:
        text = error.message if isinstance(error, NotFoundError) else str(error.detail)
        await socket.close(NOT_ALLOWED, text[:120])
        return
    # Listen before looking: what is committed in between would be neither found nor heard.
    subscriber = services.streams.subscribe(order_id, row.order.interval)
    try:
        devices, hello = await services.read(lambda c: _begin(c, viewer, order_id))
        services.streams.drives(order_id, devices)
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(PROTOCOL if PROTOCOL in offered else None)
        await _serve(socket, services, subscriber, hello)
    finally:
        services.streams.unsubscribe(order_id, subscriber)


async def _serve(
    socket: WebSocket, services: Services, subscriber: Subscriber, hello: Hello
) -> None:
    """Send until the reader leaves, falls behind or may not listen any more."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        work = [
            tasks.create_task(_send(socket, subscriber, hello)),
            tasks.create_task(_until_left(socket, ended)),
            tasks.create_task(_until_dropped(subscriber, ended)),
            tasks.create_task(_until_shut_out(socket, services, ended)),
        ]
        why = await ended
        for task in work:
            task.cancel()
    if why == "left":
        return
    code = TOO_SLOW if why == "dropped" else NOT_ALLOWED
    # The reader may not even take this: it is not waited for.
    with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
        async with asyncio.timeout(_FAREWELL_S):
            if why == "dropped":
                await socket.send_text(msgspec.json.encode(Dropped()).decode())
            await socket.close(code, why)


async def _send(socket: WebSocket, subscriber: Subscriber, hello: Hello) -> None:
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # it left: `_until_left` sees it
        await socket.send_text(msgspec.json.encode(hello).decode())
        while True:
            await socket.send_text((await subscriber.take()).decode())


async def _until_left(socket: WebSocket, ended: asyncio.Future[str]) -> None:
    """Read on, so that a closed connection is seen; what a reader says is not listened to."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        continue
    _end(ended, "left")


async def _until_dropped(subscriber: Subscriber, ended: asyncio.Future[str]) -> None:
    await subscriber.dropped.wait()
    _end(ended, "dropped")


async def _until_shut_out(
    socket: WebSocket, services: Services, ended: asyncio.Future[str]
) -> None:
    while True:
        await asyncio.sleep(_CHECK_S)
        try:
            await _viewer(socket, services)
        except HTTPException:
            _end(ended, "the token is no longer good")
            return


def _end(ended: asyncio.Future[str], why: str) -> None:
    if not ended.done():
        ended.set_result(why)


async def _viewer(socket: WebSocket, services: Services) -> Viewer:
    header = socket.headers.get("authorization", "")
    for offered in socket.scope.get("subprotocols", []):
        if not header and offered.startswith(_BEARER):
            word = offered.removeprefix(_BEARER)
            with contextlib.suppress(ValueError):
                header = (
                    f"Bearer {base64.urlsafe_b64decode(word + '=' * (-len(word) % 4)).decode()}"
                )
    principal = await services.authenticator.authenticate(header, address_of(socket.client))
    return principal.viewer


def _begin(connection: Connection, viewer: Viewer, order_id: str) -> tuple[set[str], Hello]:
    row = order_of_buyer(connection, viewer, order_id)
    plans = (record.fact for record in read_streams(connection, [order_id]))
    devices = {
        allocation.device_id
        for plan in plans if isinstance(plan, OrderPlanned)
        for allocation in plan.allocations
    }  # fmt: skip
    return devices, Hello(order_id=order_id, state=row.state.value)
