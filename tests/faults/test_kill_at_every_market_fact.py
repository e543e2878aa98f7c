"""Kill -9 at every market fact, before and after its commit; the client repeats its request.

One market is killed on its way from the first asset to two signatures, and again once the
order that is called on it has its statement. In the end there is one of everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from gateway.cli.journal import check
from gateway.store.engine import open_engine
from gateway.store.journal import read_after
from marketplace_core.events import AnyMarketFact
from tests.harness.killer import arguments
from tests.harness.street import DEVICES, ORDER_KW, Street, street

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(600)]
MOST = 1_000_000
# A finding about a device is nobody's request: test_kill_at_a_finding.py kills at it.
MARKET_FACTS = {kind.__name__ for kind in get_args(AnyMarketFact)} - {"DeviceFlagged"}
UNANSWERED = 2
"""Emergency stops that were written down, and killed before anybody was answered."""
Request = Callable[[], Any]
Step = tuple[str, Request]


class Entry:
    """The requests that lead to a signed contract, each with a key of its own."""

    def __init__(self, here: Street) -> None:
        self._here = here
        self._window = here.window
        self.need = ""
        self.contract = ""
        self.line = ""
        self.dispute = ""

    def steps(self) -> list[Step]:
        """The fact that each request makes, and the request; it may be repeated."""
        return [
            ("AssetsRegistered", self._register), ("NeedPublished", self._publish),
            ("BidPlaced", self._bid), ("AuctionCleared", self._clear),
            ("ContractSigned", lambda: self._sign("org_buyer")),
            ("ContractSigned", lambda: self._sign("org_seller")),
            ("LocationsPlaced", self._place),
            ("OrganisationRegistered", lambda: self._operate("", id="org_new", name="New")),
            ("OrganisationSuspended", lambda: self._operate("/org_new/suspend", reason="test")),
            ("OrganisationReinstated", lambda: self._operate("/org_new/reinstate")),
        ]  # fmt: skip

    def afterwards(self) -> list[Step]:
        """The same for what follows on a statement."""
        return [
            ("DisputeOpened", self._dispute), ("DisputeResolved", self._resolve),
            # Nothing runs: it stops nothing, and is written down and answered all the same.
            ("EmergencyStopped", self._emergency), ("EmergencyAnswered", self._emergency),
        ]  # fmt: skip

    def _register(self) -> Any:
        seller = self._here.lab.client("org_seller")
        return seller.register_assets(self._here.assets(), key="assets")

    def _publish(self) -> Any:
        need = {
            "feeder": "F-114", "direction": "UP", "kw": ORDER_KW, "window": self._window,
            "price_cap": "600", "currency": "USD", "baseline": "zero",
        }  # fmt: skip
        answer = self._here.lab.client("org_buyer").publish_need(need, key="need")
        self.need = answer["id"]
        return answer

    def _bid(self) -> Any:
        bid = {"assets": [asset["id"] for asset in self._here.assets()], "kw": ORDER_KW,
               "utilisation_price": "300"}  # fmt: skip
        return self._here.lab.client("org_seller").bid(self.need, bid, key="bid")

    def _clear(self) -> Any:
        answer = self._here.lab.client("org_buyer").clear(self.need, key="clearing")
        (offered,) = answer["contracts"]
        self.contract = offered["id"]
        return answer

    def _sign(self, organisation: str) -> Any:
        return self._here.lab.client(organisation).sign(self.contract, key="signature")

    def _place(self) -> Any:
        feeder = {"id": "F-114", "name": "F-114", "level": "feeder", "parent": "US"}
        tree = [{"id": "US", "name": "US", "level": "country"}, feeder]
        return self._ask("org_operator", "/v1/locations", tree, method="PUT")

    def _operate(self, path: str, **body: str) -> Any:
        return self._ask("org_operator", f"/v1/organisations{path}", body)

    def _dispute(self) -> Any:
        body = {"line_id": self.line, "reason": "too much"}
        answer = self._ask("org_buyer", "/v1/disputes", body)
        self.dispute = answer["id"]
        return answer

    def _resolve(self) -> Any:
        body = {"accept": False, "reason": "it is right"}
        return self._ask("org_operator", f"/v1/disputes/{self.dispute}/resolve", body)

    def _emergency(self) -> Any:
        body = {"scope": {"kind": "all"}, "reason": "test"}
        return self._ask("org_operator", "/v1/emergency-stop", body)

    def _ask(self, who: str, path: str, body: Any, method: str = "POST") -> Any:
        headers = {"Idempotency-Key": path.replace("/", "-")}
        return self._here.lab.client(who)._call(method, path, json=body, headers=headers)


class Repeats:
    """Requests whose answers were lost or heard: repeated, they are answered alike for ever."""

    def __init__(self) -> None:
        self._answers: list[tuple[Request, list[Any]]] = []

    def add(self, request: Request) -> None:
        self._answers.append((request, []))

    def check(self) -> None:
        for request, answers in self._answers:
            answers.append(request())
            assert answers[-1] == answers[0]


def killed_at(here: Street, kind: str, when: str, before: Repeats, request: Request) -> None:
    """A service that answers all that was done before again, and dies of the request."""
    process = here.lab.start(module="tests.harness.killer", arguments=arguments(kind, 1, when))
    try:
        before.check()
        with pytest.raises(httpx.TransportError):
            request()
        assert process.wait(30) == -9
    finally:
        process.kill()


def journal(here: Street) -> list[Any]:
    engine = open_engine(f"sqlite:///{here.folder / 'data/market.db'}")
    try:
        with engine.connect() as connection:
            return [record.fact for record in read_after(connection, {}, MOST)]
    finally:
        engine.dispose()


def test_a_market_survives_kill_9_at_every_fact(tmp_path: Path) -> None:
    with street(tmp_path) as here:
        # A service window of days: it is open whenever the last restart is over.
        here.window = here.next_window(lead_s=5.0, periods=12 * 24 * 3)
        entry = Entry(here)
        before = Repeats()
        kill_through(here, entry.steps(), before)
        settle(here, entry, before)
        kill_through(here, entry.afterwards(), before)
        facts = Counter(type(fact).__name__ for fact in journal(here))
        made = {kind: count for kind, count in facts.items() if kind in MARKET_FACTS}
        expected = Counter(kind for kind, _ in (*entry.steps(), *entry.afterwards()))
        expected["EmergencyStopped"] += UNANSWERED
        assert made == expected
        assert set(made) == MARKET_FACTS
        data = here.folder / "data"
        verdict = check(f"sqlite:///{data / 'market.db'}", data / "roots/roots.jsonl",
                        data / "keys/journal.pub.pem")  # fmt: skip
        assert verdict.verified, verdict.faults


def kill_through(here: Street, steps: list[Step], before: Repeats) -> None:
    """Die of every request twice, before and after its commit."""
    for kind, request in steps:
        for when in ("before", "after"):
            killed_at(here, kind, when, before, request)
        if kind != "EmergencyStopped":  # answered with the fact after it
            before.add(request)


def settle(here: Street, entry: Entry, before: Repeats) -> None:
    """The market goes on: one asset set, one need, one contract that both signed, one order."""
    process = here.lab.start()
    try:
        before.check()
        here.await_telemetry()
        assets = here.lab.client("org_seller").get("/v1/assets")
        assert [asset["devices"] for asset in assets] == [[device] for device in DEVICES]
        (agreed,) = here.lab.client("org_buyer").contracts(entry.need)
        assert sorted(agreed["signed_by"]) == ["org_buyer", "org_seller"]
        here.window = here.next_window(lead_s=3.0, periods=1)
        order_id = here.submit(entry.need)
        assert order_id is not None
        here.await_settled(order_id)
        outcomes = {row["outcome"]["type"] for row in here.order(order_id)["setpoints"]}
        assert outcomes == {"applied"}
        lines = here.lab.client("org_buyer").get(f"/v1/orders/{order_id}/statement")
        entry.line = lines[0]["id"]
    finally:
        assert process.stop() == 0
