"""Access tokens for client credentials (RFC 6749, section 4.4)."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qsl, unquote_plus

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse

from gateway.api.auth import address_of
from gateway.api.services import Services, Using
from gateway.store.clients import ClientRow

router = APIRouter(tags=["authentication"])
_FORM = "application/x-www-form-urlencoded"
_LONGEST = 4_096
_UNAUTHORIZED = 401
_FIELDS = {
    "grant_type": {"type": "string", "enum": ["client_credentials"]},
    "client_id": {"type": "string"},
    "client_secret": {"type": "string", "format": "password"},
    "scope": {"type": "string"},
}
_SCHEMA = {"type": "object", "required": ["grant_type"], "properties": _FIELDS}


class _TokenError(Exception):
    """An error response of RFC 6749, section 5.2."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status

    def response(self, *, basic: bool) -> JSONResponse:
        headers = {"Cache-Control": "no-store"}
        if self.status == _UNAUTHORIZED and basic:
            headers["WWW-Authenticate"] = 'Basic realm="flexway"'
        body = {"error": self.error, "error_description": self.description}
        return JSONResponse(body, self.status, headers)


@router.post(
    "/oauth/token",
    openapi_extra={"requestBody": {"required": True, "content": {_FORM: {"schema": _SCHEMA}}}},
)
async def issue_token(request: Request, services: Using) -> JSONResponse:
    """Exchange a client's id and secret, by HTTP Basic or in the form, for an access token."""
    basic = request.headers.get("authorization", "").lower().startswith("basic ")
    try:
        row, token = await _granted(request, services, basic=basic)
    except _TokenError as error:
        return error.response(basic=basic)
    body = {
        "access_token": token, "token_type": "Bearer", "scope": row.role,
        "expires_in": int(services.authenticator.token_for_s),
    }  # fmt: skip
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


async def _granted(request: Request, services: Services, *, basic: bool) -> tuple[ClientRow, str]:
    form = await _form(request)
    grant = form.get("grant_type")
    if grant is None:
        raise _TokenError("invalid_request", "grant_type is missing")
    if grant != "client_credentials":
        raise _TokenError("unsupported_grant_type", "only client_credentials is served")
    client_id, secret = _credentials(request, form, basic=basic)
    row, token = await _exchange(services, client_id, secret, address_of(request.client))
    if form.get("scope") not in {None, row.role}:
        raise _TokenError("invalid_scope", "a client has its role as its only scope")
    return row, token


async def _exchange(
    services: Services, client_id: str, secret: str, address: str
) -> tuple[ClientRow, str]:
    try:
        return await services.authenticator.exchange(client_id, secret, address)
    except HTTPException as error:
        if error.status_code != _UNAUTHORIZED:
            raise
        raise _TokenError("invalid_client", str(error.detail), _UNAUTHORIZED) from error


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise _TokenError("invalid_request", f"send the parameters as {_FORM}")
    body = await request.body()
    if len(body) > _LONGEST:
        raise _TokenError("invalid_request", f"at most {_LONGEST} bytes")
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=bool(body), max_num_fields=20)
    except ValueError as error:
        raise _TokenError("invalid_request", "the form cannot be read") from error
    form = dict(pairs)
    if len(form) < len(pairs):
        raise _TokenError("invalid_request", "a parameter is given twice")
    return form


def _credentials(request: Request, form: dict[str, str], *, basic: bool) -> tuple[str, str]:
    in_form = "client_secret" in form
    if basic and in_form:
        raise _TokenError("invalid_request", "authenticate in one way, not in two")
    if in_form:
        return form.get("client_id", ""), form["client_secret"]
    if not basic:
        raise _TokenError("invalid_client", "the client's secret is missing", _UNAUTHORIZED)
    word = request.headers["authorization"].partition(" ")[2]
    try:
        text = base64.b64decode(word, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        message = "the Basic credentials cannot be read"
        raise _TokenError("invalid_client", message, _UNAUTHORIZED) from error
    client_id, _, secret = text.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)
