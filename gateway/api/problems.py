"""RFC 9457 problem documents: what is wrong, where, which rule, what to do."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from marketplace_core.errors import RejectedError, RequestError, StoreError


def problem(status: int, title: str, **members: object) -> JSONResponse:
    """A problem response; empty members are left out."""
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    body.update({name: value for name, value in members.items() if value})
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None  # noqa: PLR2004
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def install_problems(app: FastAPI) -> None:
    """Answer every expected failure with a problem document."""

    @app.exception_handler(RequestError)
    async def request_error(_: Request, error: RequestError) -> JSONResponse:
        status = 404 if error.message.startswith("there is no ") else 422
        title = "Not found" if status == 404 else "The request breaks a rule"  # noqa: PLR2004
        if isinstance(error, RejectedError) and status != 404:  # noqa: PLR2004
            title = "Refused by a market rule"
        return problem(
            status, title, detail=error.message, field=error.field, rule=error.rule,
            remedy=error.remedy,
        )  # fmt: skip

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [
            {"field": ".".join(str(part) for part in item["loc"]), "rule": item["msg"]}
            for item in error.errors()
        ]
        return problem(422, "The request is malformed", errors=faults)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail))

    @app.exception_handler(StoreError)
    async def store_error(_: Request, error: StoreError) -> JSONResponse:
        return problem(503, "Nothing was stored: try again", detail=str(error))

    @app.exception_handler(OperationalError)
    async def database_away(_: Request, __: OperationalError) -> JSONResponse:
        return problem(503, "The database does not answer: try again")
