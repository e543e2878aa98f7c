"""What was found wrong with devices."""

from __future__ import annotations

from fastapi import APIRouter, Response

from gateway.api.auth import Caller
from gateway.api.services import Using, json_response
from gateway.store.flags import newest_flags

router = APIRouter(prefix="/v1", tags=["operations"])


@router.get("/flags")
def list_flags(services: Using, caller: Caller) -> Response:
    """Findings about devices, newest first."""
    caller.require("operator")
    with services.engine.connect() as connection:
        return json_response(newest_flags(connection))
