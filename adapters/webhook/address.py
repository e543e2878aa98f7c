"""Which addresses may be spoken to: a registered URL must not lead into our own network."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

import httpx

from adapters.webhook.config import WebhookPolicy

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
PORTS: Final = {"https": 443, "http": 80}
_LONGEST_URL: Final = 2_048
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def url_fault(url: str, policy: WebhookPolicy) -> str:
    """Why a URL is not taken, whatever it resolves to; empty when it is."""
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        return f"a URL is at most {_LONGEST_URL} printable ASCII characters without spaces"
    try:
        parts, parsed = urlsplit(url), httpx.URL(url)
        port = parts.port
    except (ValueError, httpx.InvalidURL) as error:
        return f"it is no URL: {error}"
    if parts.scheme != "https" and not (policy.lab and parts.scheme == "http"):
        return "only https is spoken"
    # two parsers that see two hosts would let one be checked and the other be asked
    seen = (parsed.raw_host.decode(), parsed.port or PORTS[parts.scheme])
    if not parts.hostname or (parts.hostname, port or PORTS[parts.scheme]) != seen:
        return "its host cannot be read without doubt"
    if "@" in parts.netloc or "#" in url:
        return "it may carry neither credentials nor a fragment"
    return ""


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs have the same scheme, host and port."""
    first, second = httpx.URL(one), httpx.URL(other)
    return (first.scheme, first.host, first.port) == (second.scheme, second.host, second.port)


def address_fault(text: str, policy: WebhookPolicy, *, plain: bool) -> str:
    """Why an address is not spoken to; empty when it is. `plain`: over http.

    The words do not name the address: who registers a name must not learn what it means here.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return "it leads to what is no address"
    inner = _inner(address)
    if policy.lab and inner.is_loopback:
        return ""
    if plain:
        return "http is for loopback only"
    if any(inner in network for network in policy.allow_addresses):
        return ""
    if _public(address) and _public(inner):
        return ""
    return "it leads to an address that is neither public nor in webhook.allow_addresses"


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address is a way of writing, or leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is None and address.teredo is not None:
        embedded = address.teredo[1]
    if embedded is None and address in _NAT64:
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address if embedded is None else embedded


def _public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address in _NAT64:
            return True  # judged by the address that it maps
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)
