"""Implements the DeviceAdapter port: aggregates that are dispatched by signed webhook.

The message carries its own end, so a lease is never refreshed on the wire; an answer is an
acknowledgement, not a read-back. What may have arrived and was not answered is reported
Unconfirmed, and repeated from `run` while it is valid: it is the same message, known by its
id, so that it acts once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

from adapters.base import refuse
from adapters.webhook.book import Book, Standing, Told
from adapters.webhook.config import Delivery, Directory, Endpoint, WebhookDevice, WebhookPolicy
from adapters.webhook.courier import Courier, Delivered
from adapters.webhook.link import Answered, NotSent
from adapters.webhook.mapping import cancellation, delivery_id, dispatch, outcome
from adapters.webhook.wire import (
    Accepted,
    Declined,
    Ping,
    Status,
    Unclear,
    WireError,
    decode_status,
    encode,
)
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import (
    Applied,
    ReadBack,
    Refused,
    Setpoint,
    SetpointOutcome,
)
from marketplace_core.errors import DeviceError
from marketplace_core.ports import Clock, ReadingSink, TimeMap
from marketplace_core.units import Kw

_HEARD_PINGS: Final = 3
"""An endpoint is believed present for so many pings after it answered."""
_NOBODY: Final = "its organisation has registered no webhook that takes dispatches"


class WebhookAdapter:
    """Every aggregate that is dispatched by webhook."""

    protocol = "webhook"

    def __init__(
        self,
        devices: Sequence[WebhookDevice],
        *,
        courier: Courier,
        directory: Directory,
        policy: WebhookPolicy,
        clock: Clock,
        time_map: TimeMap,
        new_id: Callable[[str], str],
    ) -> None:
        """`directory` is asked for the endpoint each time, so a new one takes effect at once."""
        self._devices = {device.device_id: device for device in devices}
        self._courier = courier
        self._directory = directory
        self._policy = policy
        self._clock = clock
        self._map = time_map
        self._new_id = new_id
        self._book = Book()
        self._endpoints: dict[str, str] = {}
        self._last_issue: datetime | None = None

    def profiles(self) -> Sequence[DeviceProfile]:
        """The profile of every aggregate."""
        return [device.profile for device in self._devices.values()]

    def restore(self, *, acknowledged: Sequence[Setpoint], doubtful: Sequence[Setpoint]) -> None:
        """After a restart: what was acknowledged durably, and what may have arrived."""
        self._book.restore(acknowledged, Standing.ACKNOWLEDGED)
        self._book.restore(doubtful, Standing.DOUBTFUL)

    async def run(self, sink: ReadingSink, *, ready: Callable[[], None]) -> None:  # noqa: ARG002 - readings come by the API
        """Ping endpoints and settle what is in doubt, until cancelled."""
        ready()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ping_periodically())
            tasks.create_task(self._settle_periodically())

    async def issue(
        self, setpoints: Sequence[Setpoint]
    ) -> AsyncIterator[Sequence[SetpointOutcome]]:
        """Deliver side by side; yield outcomes as answers arrive. Raises StoreError."""
        done: asyncio.Queue[SetpointOutcome] = asyncio.Queue()

        async def one(setpoint: Setpoint) -> None:
            done.put_nowait(await self._issue(setpoint))

        async with asyncio.TaskGroup() as tasks:
            for setpoint in setpoints:
                tasks.create_task(one(setpoint))
            left = len(setpoints)
            while left:
                batch = [await done.get()]
                while not done.empty():
                    batch.append(done.get_nowait())
                left -= len(batch)
                yield batch

    async def release(self, device_id: str, *, order_id: str, revision: int) -> SetpointOutcome:
        """Withdraw an order from an aggregate; past every queue. Raises StoreError."""
        now = self._clock.now()
        if device_id not in self._devices:
            reason = "no such device is bound here"
            return Refused(setpoint_id="", device_id=device_id, at=now, reason=reason)
        device = self._device(device_id)
        told = self._book.of_order(device_id, order_id, now)
        if not told:
            return Applied(setpoint_id="", device_id=device_id, at=now)
        newest = told[-1].setpoint.revision
        if newest > revision:
            reason = f"revision {newest} is in force"
            return Refused(setpoint_id="", device_id=device_id, at=now, reason=reason)
        for one in told:
            one.withdrawn_by = revision
        result = await self._withdraw(device, told[-1])
        return outcome(result, "", device_id, self._clock.now(), lease_s=None)

    async def read_back(self, device_id: str) -> ReadBack:
        """Ask the endpoint if it can be asked, else tell what it acknowledged.

        Raises DeviceError when it can be asked and does not answer.
        """
        device, now = self._device(device_id), self._clock.now()
        running = self._book.running(device_id, now)
        endpoint = await self._endpoint(device)
        if running and endpoint is not None and endpoint.status_url:
            return await self._ask(endpoint, running[-1])
        known = [told for told in running if told.standing is Standing.ACKNOWLEDGED]
        if not known:
            return ReadBack(device_id=device_id, at=now, active=False)
        setpoint = known[-1].setpoint
        return ReadBack(
            device_id=device_id,
            at=now,
            active=True,
            setpoint_id=setpoint.id,
            setpoint_kw=setpoint.power_kw,
            lease_remaining_s=self._left_s(setpoint),
        )

    def connected(self, device_id: str) -> bool:
        """Whether the endpoint answered a delivery or a ping within three pings."""
        device = self._devices.get(device_id)
        endpoint_id = device and self._endpoints.get(device.organisation)
        heard_at = self._courier.lane(endpoint_id).heard_at if endpoint_id else None
        if heard_at is None:
            return False
        return self._clock.monotonic() - heard_at <= _HEARD_PINGS * self._policy.ping_s

    async def _issue(self, setpoint: Setpoint) -> SetpointOutcome:
        device = self._devices.get(setpoint.device_id)
        now = self._clock.now()
        verdict = refuse(setpoint, None if device is None else device.profile, now)
        if verdict is not None or device is None:
            return verdict or outcome(NotSent(_NOBODY), setpoint.id, "", now, lease_s=None)
        newer = self._book.of_order(setpoint.device_id, setpoint.order_id, now)
        if newer and newer[-1].setpoint.revision > setpoint.revision:
            reason = f"superseded by revision {newer[-1].setpoint.revision}"
            return outcome(Declined(reason, ""), setpoint.id, device.device_id, now, lease_s=None)
        result = await self._tell(device, self._book.enter(setpoint))
        at = self._clock.now()
        return outcome(result, setpoint.id, device.device_id, at, lease_s=self._left_s(setpoint))

    async def _tell(self, device: WebhookDevice, told: Told) -> Delivered:
        """Deliver a dispatch unless it is acknowledged, one at a time; note what came of it."""
        async with told.turn:
            return await self._tell_alone(device, told)

    async def _tell_alone(self, device: WebhookDevice, told: Told) -> Delivered:
        setpoint = told.setpoint
        if told.standing is Standing.ACKNOWLEDGED and told.withdrawn_by is None:
            return Accepted()
        endpoint = await self._endpoint(device)
        if endpoint is None:
            return self._note(told, Unclear(_NOBODY) if told.doubted else NotSent(_NOBODY))
        told.standing = Standing.SENDING
        message = dispatch(
            setpoint, device.profile, issued_at=self._issue_instant(), time_map=self._map
        )
        result = await self._courier.deliver(
            _delivery(endpoint, message.id, "dispatch", encode(message)),
            until=self._deadline(setpoint),
            withdrawn=lambda: told.withdrawn_by is not None,
            doubtful=told.doubted,
        )
        if told.withdrawn_by is not None:
            # the cancellation is newer: whatever came of this, it does not stand
            return Declined("released before it was answered", "")
        return self._note(told, result)

    def _note(self, told: Told, result: Delivered) -> Delivered:
        match result:
            case Accepted():
                told.standing = Standing.ACKNOWLEDGED
            case Unclear():
                told.standing, told.doubted = Standing.DOUBTFUL, True
            case Declined() | NotSent():
                self._book.drop(told)
        return result

    async def _withdraw(self, device: WebhookDevice, told: Told) -> Delivered:
        """Deliver the cancellation of what was told; note what came of it."""
        setpoint, revision = told.setpoint, told.withdrawn_by
        endpoint = await self._endpoint(device)
        if endpoint is None or revision is None:
            return NotSent(_NOBODY)
        message = cancellation(
            setpoint,
            revision=revision,
            issued_at=self._issue_instant(),
            end=self._map.to_wall(setpoint.valid_until),
        )
        result = await self._courier.deliver(
            _delivery(endpoint, message.id, "cancellation", encode(message)),
            until=self._deadline(setpoint),
            urgent=True,
        )
        order = self._book.of_order(device.device_id, setpoint.order_id, self._clock.now())
        for one in [one for one in order if one.setpoint.revision <= revision]:
            if isinstance(result, Accepted):
                self._book.drop(one)
            elif isinstance(result, Declined):
                one.withdrawn_by = None  # it stays with the aggregate, which said so
        return result

    async def _ask(self, endpoint: Endpoint, told: Told) -> ReadBack:
        setpoint, device_id = told.setpoint, told.setpoint.device_id
        url = f"{endpoint.status_url.rstrip('/')}/{setpoint.order_id}"
        exchange = await self._courier.ask(endpoint, url)
        if not isinstance(exchange, Answered):
            raise DeviceError(exchange.reason, device_id=device_id, retryable=True)
        status = _status(exchange, device_id)
        if status.active and status.setpoint_id == setpoint.id:
            if told.standing is not Standing.ACKNOWLEDGED:
                await self._courier.confirm(_delivery(endpoint, setpoint.id, "dispatch", b""))
            told.standing = Standing.ACKNOWLEDGED
        elif told.standing is Standing.ACKNOWLEDGED:
            # it lost what it had said yes to
            told.standing, told.doubted = Standing.DOUBTFUL, True
        return ReadBack(
            device_id=device_id,
            at=self._clock.now(),
            active=status.active,
            setpoint_id=status.setpoint_id,
            setpoint_kw=None if status.power_kw is None else Kw(status.power_kw),
            lease_remaining_s=self._left_s(setpoint) if status.active else None,
        )

    async def _ping_periodically(self) -> None:
        while True:
            async with asyncio.TaskGroup() as tasks:
                for organisation in {d.organisation for d in self._devices.values()}:
                    tasks.create_task(self._ping(organisation))
            await asyncio.sleep(self._policy.ping_s)

    async def _ping(self, organisation: str) -> None:
        endpoint = await self._directory(organisation)
        if endpoint is None:
            self._endpoints.pop(organisation, None)
            return
        self._endpoints[organisation] = endpoint.id
        ping = Ping(id=self._new_id("png"), issued_at=self._wall())
        await self._courier.ping(endpoint, encode(ping), ping.id)

    async def _settle_periodically(self) -> None:
        """Repeat what may have arrived and was not answered, while it means anything."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(self._policy.trial_every_s)
                for told in self._book.unsettled(self._clock.now()):
                    device = self._devices.get(told.setpoint.device_id)
                    if device is not None:
                        told.settling = True
                        tasks.create_task(self._settle(device, told))

    async def _settle(self, device: WebhookDevice, told: Told) -> None:
        try:
            if told.withdrawn_by is None:
                await self._tell(device, told)
            else:
                await self._withdraw(device, told)
        finally:
            told.settling = False

    async def _endpoint(self, device: WebhookDevice) -> Endpoint | None:
        endpoint = await self._directory(device.organisation)
        if endpoint is not None:
            self._endpoints[device.organisation] = endpoint.id
        return endpoint

    def _issue_instant(self) -> datetime:
        """Wall time, later than at the last call: receivers order messages by it."""
        now = self._wall()
        if self._last_issue is not None:
            now = max(now, self._last_issue + timedelta(microseconds=1))
        self._last_issue = now
        return now

    def _wall(self) -> datetime:
        return self._map.to_wall(self._clock.now())

    def _left_s(self, setpoint: Setpoint) -> float:
        return max(0.0, (setpoint.valid_until - self._clock.now()).total_seconds())

    def _deadline(self, setpoint: Setpoint) -> float:
        """Monotonic: a message is not tried beyond its end."""
        return self._clock.monotonic() + self._clock.wall_seconds(self._left_s(setpoint))

    def _device(self, device_id: str) -> WebhookDevice:
        try:
            return self._devices[device_id]
        except KeyError:
            msg = f"no webhook stands for device {device_id}"
            raise DeviceError(msg, device_id=device_id, retryable=False) from None


def _delivery(endpoint: Endpoint, message_id: str, kind: str, body: bytes) -> Delivery:
    identity = delivery_id(endpoint.id, message_id)
    return Delivery(id=identity, endpoint=endpoint, message_id=message_id, kind=kind, body=body)


def _status(exchange: Answered, device_id: str) -> Status:
    """What an endpoint said of an order; DeviceError when that cannot be read."""
    if exchange.status == HTTPStatus.NOT_FOUND:
        return Status(active=False)
    if exchange.status != HTTPStatus.OK:
        msg = f"the status was answered with HTTP {exchange.status}"
        raise DeviceError(msg, device_id=device_id, retryable=True)
    try:
        return decode_status(exchange.body)
    except WireError as error:
        msg = f"the status cannot be read: {error}"
        raise DeviceError(msg, device_id=device_id, retryable=True) from error
