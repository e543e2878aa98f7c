"""What OpenADR needs, apart: its library takes half a second that a site without it saves."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.openadr.adapter import OpenAdrAdapter
from adapters.openadr.config import OpenAdrVtn
from config.settings import Settings
from gateway.bindings import openadr_vens
from gateway.bootstrap.basis import Basis
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.ports import DeviceAdapter


def make(basis: Basis) -> OpenAdrAdapter:
    """The VTN with its VENs, as the settings name them."""
    settings = basis.settings
    return OpenAdrAdapter(
        _vtn(settings), openadr_vens(settings), clock=basis.clock, time_map=basis.time_map
    )


def restore(adapter: DeviceAdapter, told: Sequence[Setpoint]) -> None:
    """Tell a VTN which events its VENs may hold."""
    if isinstance(adapter, OpenAdrAdapter):
        adapter.restore(told)


def _vtn(settings: Settings) -> OpenAdrVtn:
    openadr = settings.openadr
    return OpenAdrVtn(
        host=openadr.host, port=openadr.port, vtn_id=openadr.vtn_id, state=openadr.state,
        tls_certificate=openadr.tls_certificate, tls_key=openadr.tls_key,
        ca_certificate=openadr.ca_certificate, lab=settings.lab, poll_s=openadr.poll_s,
        answer_timeout_s=openadr.answer_timeout_s,
    )  # fmt: skip
