"""A real VTN process under attack, and killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from firmware_sim.servers.openadr import SiteVen
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.units import Kw

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "openadr"
POLL = (GOLDEN / "poll.xml").read_text().replace("PLACE-OF-VEN-ID", "ven-1")
HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
ENTITY = '<!DOCTYPE a [<!ENTITY e "x">]>'

VTN = """
import asyncio, json, sys, time
from datetime import UTC, datetime
from pathlib import Path
import msgspec
from adapters.openadr.adapter import OpenAdrAdapter
from adapters.openadr.config import OpenAdrVen, OpenAdrVtn
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.simtime import identity

class Clock:
    def now(self): return datetime.now(UTC)
    def monotonic(self): return time.monotonic()
    def wall_seconds(self, seconds): return seconds

class Sink:
    async def store(self, readings): pass
    def quarantine(self, *, source, reason, evidence, device_id=""): say(quarantined=reason[:60])
    def noticed(self, **what): say(noticed=str(what))

def say(**what): print(json.dumps(what), flush=True)

async def main():
    asked = json.loads(sys.argv[1])
    config = OpenAdrVtn(host="127.0.0.1", port=asked["port"], vtn_id="vtn-test", lab=True,
                        state=Path(asked["state"]), poll_s=0.2, answer_timeout_s=5.0)
    profile = DeviceProfile(device_id="dev_site", protocol="openadr", min_kw=-200.0, max_kw=0.0,
                            lease=LeaseKind.EVENT_END)
    ven = OpenAdrVen(device_id="dev_site", ven_name="carpark", ven_id="ven-1", profile=profile)
    adapter = OpenAdrAdapter(config, [ven], clock=Clock(), time_map=identity())
    adapter.restore(msgspec.convert(asked["restore"], list[Setpoint]))
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(adapter.run(Sink(), ready=ready.set))
        await ready.wait()
        say(port=adapter.port)
        for one in msgspec.convert(asked["issue"], list[Setpoint]):
            outcome = None
            while type(outcome).__name__ in ("NoneType", "Unreachable"):
                await asyncio.sleep(0.01)
                async for (outcome,) in adapter.issue([one]):
                    pass
            say(outcome=type(outcome).__name__)

asyncio.run(main())
"""


class Child:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self, key: str) -> Any:
        assert self.process.stdout is not None
        async with asyncio.timeout(20.0):
            async for line in self.process.stdout:
                with contextlib.suppress(json.JSONDecodeError):
                    said = json.loads(line)
                    if key in said:
                        return said[key]
        pytest.fail(f"the VTN ended with {self.process.returncode} before it said {key}")


@contextlib.asynccontextmanager
async def vtn(
    folder: Path, *, port: int = 0, restore: list[Setpoint], issue: list[Setpoint]
) -> AsyncIterator[Child]:
    asked = {
        "state": str(folder / "openadr.json"),
        "port": port,
        "restore": msgspec.to_builtins(restore),
        "issue": msgspec.to_builtins(issue),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VTN, json.dumps(asked), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
        # end of file on its pipe, so that the transport is closed with the loop still there
        await process.communicate()


async def post(port: int, service: str, body: bytes) -> int:
    url = f"http://127.0.0.1:{port}/OpenADR2/Simple/2.0b/{service}"
    headers = {"Content-Type": "application/xml"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=headers) as response,
    ):
        return response.status


@contextlib.asynccontextmanager
async def site(port: int) -> AsyncIterator[SiteVen]:
    ven = SiteVen(
        vtn_url=f"http://127.0.0.1:{port}/OpenADR2/Simple/2.0b",
        ven_name="carpark",
        resource_id="dev_site",
        decide=lambda _event: True,
        poll_s=0.05,
        report_s=0.05,
    )
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(ven.run())
        try:
            yield ven
        finally:
            task.cancel()


async def until(condition: Any) -> None:
    async with asyncio.timeout(20.0):
        while not condition():  # noqa: ASYNC110 - another process's state has no event
            await asyncio.sleep(0.01)


def attacks() -> list[bytes]:
    with_dtd = POLL.replace("?>\n", f"?>\n{ENTITY}", 1)
    texts = [
        with_dtd,
        with_dtd.replace("ven-1", "&e;"),
        with_dtd.replace("</oadrSignedObject>", "&e;</oadrSignedObject>"),
        f'{HEAD}{ENTITY}<oadrPayload xmlns="http://openadr.org/oadr-2.0b/2012/07">&e;</oadrPayload>',
        POLL.replace("?>\n", '?>\n<!DOCTYPE a SYSTEM "file:///etc/passwd">', 1),
        with_dtd.replace('"x"', 'SYSTEM "file:///etc/passwd"').replace("ven-1", "&e;"),
        POLL.replace("?>\n", '?><!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>', 1).replace(
            "ven-1", "&b;"
        ),
    ]
    wide = [t.replace("UTF-8", name).encode(name) for t in texts for name in ("utf-16", "utf-32")]
    return [*(text.encode() for text in texts), *wide]


async def test_the_vtn_lives_through_messages_with_a_dtd(tmp_path: Path) -> None:
    async with vtn(tmp_path, restore=[], issue=[]) as child:
        port = await child.line("port")
        async with site(port) as ven:
            await until(lambda: ven.registrations)
            for body in attacks():
                for service in ("OadrPoll", "EiRegisterParty", "EiEvent", "EiReport"):
                    assert await post(port, service, body) == 400
                assert await post(port, "OadrPoll", POLL.encode()) == 200
            assert child.process.returncode is None


async def test_a_killed_vtn_comes_back_with_its_events_and_registrations(tmp_path: Path) -> None:
    start = datetime.now(UTC) - timedelta(seconds=5)
    setpoint = Setpoint(
        id="sp_1",
        order_id="ord_1",
        revision=0,
        device_id="dev_site",
        power_kw=Kw(-80.0),
        valid_from=start,
        valid_until=start + timedelta(hours=1),
        lease_s=3600.0,
    )
    async with vtn(tmp_path, restore=[], issue=[]) as warm:
        port = await warm.line("port")
    async with site(port) as ven:
        async with vtn(tmp_path, port=port, restore=[], issue=[setpoint]) as first:
            assert await first.line("outcome") == "Applied"
            first.process.send_signal(signal.SIGKILL)
            assert await first.process.wait() == -signal.SIGKILL
        async with vtn(tmp_path, port=port, restore=[setpoint], issue=[setpoint]) as second:
            assert await second.line("outcome") == "Applied"
            assert ven.commanded_kw(datetime.now(UTC)) == -80.0
            assert [event.status for event in ven.events] == ["active"]
            assert ven.registrations == 1
