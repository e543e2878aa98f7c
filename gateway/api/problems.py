"""RFC 9457 problem documents: what is wrong, where, which rule, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, OperationalError
from starlette.exceptions import HTTPException

from marketplace_core.errors import NotFoundError, RejectedError, RequestError, StoreError

_UNAUTHORIZED = 401
_log = structlog.get_logger(__name__)


def problem(
    status: int, title: str, headers: Mapping[str, str] | None = None, **members: object
) -> JSONResponse:
    """A problem response; empty members are left out."""
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    body.update({name: value for name, value in members.items() if value})
    sent = dict(headers or {})
    if status == _UNAUTHORIZED:
        sent.setdefault("WWW-Authenticate", "Bearer")
    return JSONResponse(body, status, sent, media_type="application/problem+json")


def install_problems(app: FastAPI) -> None:
    """Answer every expected failure with a problem document."""

    @app.exception_handler(RequestError)
    async def request_error(_: Request, error: RequestError) -> JSONResponse:
        status, title = 422, "The request breaks a rule"
        if isinstance(error, NotFoundError):
            status, title = 404, "Not found"
        elif isinstance(error, RejectedError):
            title = "Refused by a market rule"
        return problem(
            status, title, detail=error.message, field=error.field, rule=error.rule,
            remedy=error.remedy,
        )  # fmt: skip

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
        return problem(422, "The request is malformed", errors=faults_of(error.errors()))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(DataError)
    async def data_error(_: Request, error: DataError) -> JSONResponse:
        kind = type(error.orig).__name__
        return problem(422, "A value cannot be stored", rule="text without NUL", detail=kind)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        # What it was stands in the log of the server, without what was sent.
        kind = type(error).__name__
        _log.error("request_failed", method=request.method, path=request.url.path, error=kind)
        return problem(500, "The service failed at this request", remedy="tell the operator")

    @app.exception_handler(StoreError)
    async def store_error(_: Request, error: StoreError) -> JSONResponse:
        return problem(503, "Nothing was stored: try again", detail=str(error))

    @app.exception_handler(OperationalError)
    async def database_away(_: Request, __: OperationalError) -> JSONResponse:
        return problem(503, "The database does not answer: try again")


def faults_of(errors: Any) -> list[dict[str, str]]:
    """What pydantic found wrong: the field and the rule, never the value."""
    return [
        {"field": ".".join(str(part) for part in item["loc"]), "rule": str(item["msg"])}
        for item in errors
    ]
