"""Where a registered URL may lead, and where it may not."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.webhook.address import address_fault, same_origin, url_fault
from adapters.webhook.config import WebhookPolicy, networks
from marketplace_core.errors import ConfigError

SITE = WebhookPolicy()
LAB = WebhookPolicy(lab=True)
OURS = WebhookPolicy(allow_addresses=networks(("10.1.0.0/16", "fd00:1::/64")))

FORBIDDEN = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12::1", "ff02::1",
    "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1", "64:ff9b:1::1",
    "2001:0:0:0:0:0:80ff:fffe", "nonsense", "",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:8.8.8.8",
          "64:ff9b::808:808"]  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_inside_is_not_spoken_to(address: str) -> None:
    assert address_fault(address, SITE, plain=False)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_spoken_to(address: str) -> None:
    assert address_fault(address, SITE, plain=False) == ""
    assert "http is for loopback only" in address_fault(address, LAB, plain=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_for_a_lab_only(address: str) -> None:
    assert address_fault(address, LAB, plain=True) == ""
    assert address_fault(address, LAB, plain=False) == ""
    assert address_fault(address, SITE, plain=True)
    assert address_fault("192.168.1.1", LAB, plain=False)


def test_a_listed_network_is_spoken_to_and_its_neighbour_is_not() -> None:
    assert address_fault("10.1.200.3", OURS, plain=False) == ""
    assert address_fault("::ffff:10.1.200.3", OURS, plain=False) == ""
    assert address_fault("fd00:1::5", OURS, plain=False) == ""
    assert address_fault("10.2.0.1", OURS, plain=False)
    assert address_fault("10.1.200.3", OURS, plain=True)
    with pytest.raises(ConfigError, match=r"webhook\.allow_addresses"):
        networks(("10.1.0.0/99",))


@given(st.ip_addresses())
def test_what_is_spoken_to_is_global(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if address_fault(str(address), SITE, plain=False) == "":
        mapped = getattr(address, "ipv4_mapped", None)
        assert (mapped or address).is_global
        assert not (mapped or address).is_multicast


@pytest.mark.parametrize(
    "url",
    [
        "http://hook.example/", "ftp://hook.example/", "file:///etc/passwd", "//hook.example/",
        "hook.example", "", "https://", "https:///x", "https://user:pw@hook.example/",
        "https://hook.example@10.0.0.1/", "https://hook.example/#part", "https://hook.example:x/",
        "https://hook.example:99999/", "https://hook.example/a b", "https://hook.example/\r\nX: y",
        "https://hook.example\\@10.0.0.1/", "https://höök.example/", "https://[::1/",
        "https://hook.example/" + "a" * 2_048, "HTTPS\t://hook.example/",
    ],
)  # fmt: skip
def test_a_url_that_may_be_read_in_two_ways_is_not_taken(url: str) -> None:
    assert url_fault(url, SITE)


@pytest.mark.parametrize(
    "url",
    [
        "https://hook.example/", "https://hook.example", "https://hook.example:8443/a?b=c",
        "https://hook.example:443/", "https://Hook.Example/", "https://xn--hk-fkaa.example/",
        "https://8.8.8.8/", "https://[2606:4700:4700::1111]:8443/",
    ],
)  # fmt: skip
def test_a_plain_https_url_is_taken(url: str) -> None:
    assert url_fault(url, SITE) == ""


def test_http_is_for_a_lab() -> None:
    assert url_fault("http://127.0.0.1:1234/hook", LAB) == ""
    assert url_fault("http://127.0.0.1:1234/hook", SITE)


def test_an_origin_is_scheme_host_and_port() -> None:
    assert same_origin("https://a.example/x", "https://a.example:443/y")
    assert not same_origin("https://a.example/x", "https://b.example/x")
    assert not same_origin("https://a.example/x", "https://a.example:8443/x")
    assert not same_origin("https://a.example/x", "http://a.example/x")
