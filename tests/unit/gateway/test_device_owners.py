"""A device that the configuration gives to an organisation is registered by no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.bootstrap.interface import owners_in
from tests.harness.api import ASSET, by, service, settings

PROFILE = {"min_kw": -5.0, "max_kw": 5.0, "lease": "event_end"}


def bound(**binding: Any) -> dict[str, Any]:
    return {"device_id": "bat-1", "organisation": "org_s", "profile": PROFILE, **binding}


@pytest.mark.parametrize(
    "sections",
    [
        {"modbus": {"devices": [bound(host="127.0.0.1", role="battery")]}},
        {"mqtt": {"devices": [bound()]}},
        {"openadr": {"vens": [bound(ven_name="site-1")]}},
        {"webhook": {"devices": [bound()]}},
    ],
    ids=lambda sections: next(iter(sections)),
)
def test_every_protocol_says_whose_a_device_is(tmp_path: Path, sections: dict[str, Any]) -> None:
    assert owners_in(settings(tmp_path, sections)) == {"bat-1": "org_s"}


def test_what_a_lab_leaves_out_is_nobodys(tmp_path: Path) -> None:
    sections = {"openadr": {"vens": [bound(ven_name="site-1", organisation="")]}}
    assert owners_in(settings(tmp_path, sections)) == {}


async def test_only_its_organisation_registers_it(tmp_path: Path) -> None:
    async with service(tmp_path, {"webhook": {"devices": [bound()]}}) as http:
        refused = await http.put("/v1/assets", json=[ASSET], headers=by("org_t"))
        assert refused.status_code == 422
        assert "bat-1 is bound to another organisation" in refused.text
        taken = await http.put("/v1/assets", json=[ASSET], headers=by("org_s"))
        assert taken.status_code == 200
