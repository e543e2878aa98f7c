"""The control room: dry run, stop, emergency stop."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request, Response

from gateway.api.auth import Caller
from gateway.api.idempotency import KEYED, once, replay_of
from gateway.api.rehearsal import rehearsal
from gateway.api.schemas import DryRunBody, EmergencyBody, StopBody
from gateway.api.services import Using, json_response
from gateway.emergency import EmergencyReport
from gateway.store.visible import order_of_buyer
from gateway.store.writer import Transaction

router = APIRouter(prefix="/v1", tags=["control room"])


@router.post("/orders/dry-run")
async def dry_run(body: DryRunBody, services: Using, caller: Caller) -> Response:
    """What an order would do now: who is called, each device's share, cost, headroom left.

    Nothing is written. `confirm` goes with one order for exactly this until `expires`.
    """
    caller.require("buyer")
    command = body.command()
    found = await services.read(lambda c: rehearsal(c, services, caller.organisation, command))
    token, expires = services.confirmations.give(caller.organisation, command, found)
    shown = msgspec.structs.asdict(found)
    return json_response({**shown, "expires": expires, "confirm": token})


@router.post("/orders/{order_id}/stop", openapi_extra=KEYED)
async def stop_order(
    order_id: str, body: StopBody, request: Request, services: Using, caller: Caller
) -> Response:
    """End an order early: devices are released, nothing more is instructed.

    Stopping it twice changes nothing. The answer comes once it is durable.
    """
    caller.require("buyer", "operator")

    def work(transaction: Transaction) -> dict[str, object]:
        order_of_buyer(transaction.connection, caller.viewer, order_id)
        fact = services.intake.stop(
            transaction, order_id, by=caller.organisation, reason=body.reason
        )
        row = order_of_buyer(transaction.connection, caller.viewer, order_id)
        return {"order_id": order_id, "state": row.state.value, "stopped": fact}

    return await once(request, services, caller, work, status=200)


@router.post("/emergency-stop", openapi_extra=KEYED)
async def emergency_stop(
    body: EmergencyBody, request: Request, services: Using, caller: Caller
) -> Response:
    """Stop devices at once, past every queue; the answer says what became of each and how fast.

    An operator stops anything, a buyer what its orders drive, a seller its own devices.
    """
    since = services.clock.monotonic()
    caller.require("buyer", "seller", "operator")
    replay, scope = await replay_of(request, caller), body.scope.scope()
    standing = services.emergency.open_setpoints()
    kept, (setpoints, orders) = await services.read(
        lambda c: (
            replay.kept(c),
            services.emergency.concerned(c, caller.viewer, scope, standing),
        )
    )
    if kept is not None:
        return Response(kept, media_type="application/json")

    def keep(transaction: Transaction, report: EmergencyReport) -> None:
        replay.keep(transaction.connection, msgspec.json.encode(report))

    report = await services.emergency.stop(
        setpoints, orders, scope=scope, by=caller.organisation, reason=body.reason,
        meanings=body.devices, default=body.meaning, since=since, kept=keep,
    )  # fmt: skip
    return json_response(report)
