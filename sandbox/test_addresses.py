"""The rule of outgoing calls: what is closed stays closed whatever form the address takes."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.addresses import CLOSED, METADATA, AddressPolicy, Refused

NOTHING = AddressPolicy()
v4 = st.ip_addresses(v=4)


def disguises(address: ipaddress.IPv4Address) -> list[str]:
    """IPv6 forms whose calls end at the IPv4 address."""
    number = int(address)
    return [
        f"::ffff:{address}",
        str(ipaddress.IPv6Address(0x64FF9B << 96 | number)),
        str(ipaddress.IPv6Address(0x2002 << 112 | number << 80)),
    ]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.9.1", "::1", "169.254.1.1", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255",  # noqa: S104
     "169.254.169.254", "fd00:ec2::254", "100.100.100.200", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "::127.0.0.1",
     "fe80::1%eth0"],
)  # fmt: skip
def test_closed_by_default(address):
    assert NOTHING.why_not(address)


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.1.1", "172.16.0.1", "8.8.8.8", "2001:db8::1", "fd12::1"])
def test_internal_services_and_the_world_are_open(address):
    assert NOTHING.why_not(address) == ""


def test_loopback_can_be_allowed_and_metadata_cannot():
    policy = AddressPolicy.of(allow=["127.0.0.0/8", "169.254.0.0/16", "::/0", "0.0.0.0/0"])
    assert policy.why_not("127.0.0.1") == ""
    assert policy.why_not("169.254.1.1") == ""
    for closed in METADATA:
        assert "metadata" in policy.why_not(str(closed.network_address))


def test_deny_beats_allow():
    policy = AddressPolicy.of(allow=["10.0.0.0/8"], deny=["10.1.0.0/16"])
    assert policy.why_not("10.0.0.1") == ""
    assert "outgoing.deny" in policy.why_not("10.1.2.3")


@given(v4)
def test_a_disguise_is_treated_as_what_it_hides(address):
    for disguised in disguises(address):
        assert bool(NOTHING.why_not(disguised)) == bool(NOTHING.why_not(str(address)))


@given(v4, st.lists(st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "127.0.0.0/8"])))
def test_what_is_denied_is_refused_whatever_is_allowed(address, allow):
    policy = AddressPolicy.of(allow=allow, deny=[str(address)])
    assert policy.why_not(str(address))
    assert policy.why_not(f"::ffff:{address}")


@given(st.ip_addresses())
def test_allowing_everything_opens_all_but_metadata(address):
    policy = AddressPolicy.of(allow=["0.0.0.0/0", "::/0"])
    assert ("metadata" in policy.why_not(str(address))) == bool(policy.why_not(str(address)))


def test_a_mapped_network_means_the_ipv4_one():
    assert AddressPolicy.of(deny=["::ffff:10.0.0.0/104"]).why_not("10.2.3.4")


def test_the_first_address_that_may_be_called_is_taken():
    assert NOTHING.first_allowed("h", ["127.0.0.1", "10.0.0.1", "10.0.0.2"]) == "10.0.0.1"
    with pytest.raises(Refused, match="this host itself"):
        NOTHING.first_allowed("h", ["127.0.0.1"])
    with pytest.raises(Refused, match="has no address"):
        NOTHING.first_allowed("h", [])


def test_every_closed_network_is_refused_at_both_ends():
    for closed in CLOSED:
        assert NOTHING.why_not(str(closed[0]))
        assert NOTHING.why_not(str(closed[-1]))
