"""Any Host, and any list of addresses, is judged without a crash, and none gets in by its form."""

from __future__ import annotations

import ipaddress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.config.settings import Settings
from gateway.errors import BadRequest
from gateway.http.hosts import Hosts, Misdirected, Proxies

PIECES = st.sampled_from(
    ["box", "example", "com", "evil", ".", "-", ":", "8080", "[", "]", "::1", "@", "/", "%2e", "*"]
)
TEXT = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=8).map("".join))
HTTP_1_1 = (1, 1)


@given(st.lists(TEXT, max_size=3))
def test_whatever_passes_is_a_name_that_was_allowed(given_hosts: list[str]) -> None:
    hosts = Hosts(Settings(host="0.0.0.0", allowed_hosts=("box.example.com", "*.example.net")))
    try:
        hosts.check(given_hosts, HTTP_1_1)
    except Misdirected:
        return
    except BadRequest:
        assert len(given_hosts) != 1
        return
    (host,) = given_hosts
    name = host.lower()
    if name.rpartition(":")[2].isdigit() and not name.endswith("]"):
        name = name.rpartition(":")[0]
    name = name.removesuffix(".")
    if name != "box.example.com" and not name.endswith(".example.net"):
        ipaddress.ip_address(name.strip("[]"))  # else: an address, in whatever brackets


@given(TEXT, st.sampled_from([".evil.com", ".com.", "evil.org", "@evil.com"]))
def test_no_page_of_the_public_dns_reaches_a_gateway_on_loopback(start: str, end: str) -> None:
    hosts = Hosts(Settings())
    with pytest.raises(BadRequest):
        hosts.check([f"{start}a{end}"], HTTP_1_1)


ADDRESS = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]:443"),
    st.sampled_from(["10.0.0.1", "unknown", "_hidden", "", " ", "1.2.3.4:5", "::ffff:10.9.9.9"]),
    st.text(max_size=20),
)


def request(remote: str, headers: list[tuple[str, str]]) -> Any:
    """As much of a request as is looked at."""
    return SimpleNamespace(remote=remote, headers=CIMultiDict(headers))


@given(st.lists(st.lists(ADDRESS, max_size=4).map(", ".join), max_size=3))
def test_a_client_behind_a_proxy_is_an_address(values: list[str]) -> None:
    forwarded = [("X-Forwarded-For", value) for value in values]
    proxies = Proxies(["10.0.0.0/8"])
    behind = proxies.client(request("10.0.0.1", forwarded))
    assert behind is not None
    ipaddress.ip_address(behind)
    assert proxies.client(request("192.0.2.1", forwarded)) == "192.0.2.1"


@given(st.ip_addresses().map(str), st.lists(ADDRESS, max_size=4))
def test_nobody_chooses_the_address_he_is_seen_by(real: str, claimed: list[str]) -> None:
    proxies = Proxies(["192.0.2.1"])
    seen = proxies.client(request("192.0.2.1", [("X-Forwarded-For", ", ".join([*claimed, real]))]))
    if not proxies.trusts(real):
        assert seen is not None
        mapped = getattr(ipaddress.ip_address(real), "ipv4_mapped", None)
        assert ipaddress.ip_address(seen) == (mapped or ipaddress.ip_address(real))
