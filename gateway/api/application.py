"""The ASGI application."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import (
    routes_assets,
    routes_control,
    routes_flags,
    routes_locations,
    routes_market,
    routes_oauth,
    routes_operations,
    routes_orders,
    routes_organisations,
    routes_readings,
    routes_statements,
    routes_stream,
    routes_webhooks,
)
from gateway.api.problems import install_problems, problem
from gateway.api.services import Services

_ROUTERS = (
    routes_oauth, routes_operations, routes_organisations, routes_locations, routes_assets,
    routes_market, routes_control, routes_orders, routes_stream, routes_readings,
    routes_statements, routes_flags, routes_webhooks,
)  # fmt: skip
_PROBLEM: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "What is wrong, where, which rule, what to do (RFC 9457)",
        "content": {
            "application/problem+json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "field": {"type": "string"},
                        "rule": {"type": "string"},
                        "remedy": {"type": "string"},
                        "errors": {"type": "array", "items": {"type": "object"}},
                    },
                }
            }
        },
    }
}


def create_application(services: Services) -> FastAPI:
    """Wire the routers; interactive pages are off (they would ask a foreign host for scripts)."""
    app = FastAPI(
        title="Flexway", version="1", docs_url=None, redoc_url=None, responses={**_PROBLEM}
    )
    app.state.services = services
    install_problems(app)
    for module in _ROUTERS:
        app.include_router(module.router)
    app.add_middleware(BodyLimit, limit=services.max_body_bytes)
    return app


class BodyLimit:
    """Refuses bodies above a limit, whatever they declare."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the body as it arrives."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._limit:
            await self._refuse(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                # An undeclared (chunked) body ran over: whoever reads it answers with this.
                raise HTTPException(413, f"the body is above {self._limit} bytes")
            return message

        await self._app(scope, limited, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem(
            413, "The body is too large", rule=f"at most {self._limit} bytes",
            remedy="split the batch",
        )  # fmt: skip
        await response(scope, receive, send)
