"""When a domain counts as proven: pure rules, and the DNS as it really answers."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator

import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.domain_lookup import Lookup, Question
from apps.domain_proof import Finding, Proof, after, agree, compare, record_name, record_value
from omni.kernel.resolvers import parse
from omni.testing.dns_server import DnsServer

NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
GRACE = dt.timedelta(days=3)
SEEN, MISSING, UNKNOWN = Finding("seen"), Finding("missing", "none"), Finding("unknown", "silent")


@pytest.fixture(autouse=True)
def lease() -> None:
    """Nothing here writes."""


def test_a_pending_domain_is_verified_when_the_record_is_seen() -> None:
    assert after(Proof(problem="none"), SEEN, NOW, GRACE) == (Proof(verified_at=NOW), "domain.verified")


def test_a_pending_domain_says_once_what_was_found_instead() -> None:
    proof, change = after(Proof(), MISSING, NOW, GRACE)
    assert (proof, change) == (Proof(problem="none"), "domain.checked")
    assert after(proof, MISSING, NOW, GRACE) == (proof, None)
    assert after(proof, UNKNOWN, NOW, GRACE) == (Proof(problem="silent"), "domain.checked")


def test_a_verified_domain_is_served_until_its_record_was_gone_for_the_grace_time() -> None:
    verified = Proof(verified_at=NOW)
    failing, change = after(verified, MISSING, NOW, GRACE)
    assert (failing, change) == (Proof(NOW, NOW, "none"), "domain.failing")
    assert after(failing, MISSING, NOW + GRACE / 2, GRACE) == (failing, None)
    assert after(failing, SEEN, NOW + GRACE / 2, GRACE) == (verified, "domain.recovered")
    assert after(failing, MISSING, NOW + GRACE, GRACE) == (Proof(problem="none"), "domain.unproven")


@given(st.lists(st.sampled_from([UNKNOWN, SEEN]), max_size=20))
def test_silence_of_the_dns_never_unproves_a_domain(findings: list[Finding]) -> None:
    proof, at = Proof(verified_at=NOW), NOW
    for finding in findings:
        at += GRACE
        proof, change = after(proof, finding, at, GRACE)
        assert change is None
    assert proof == Proof(verified_at=NOW)


def test_most_resolvers_have_to_agree() -> None:
    assert agree([SEEN]).verdict == "seen"
    assert agree([SEEN, SEEN, MISSING]).verdict == "seen"
    assert agree([SEEN, MISSING, UNKNOWN]).verdict == "unknown"
    assert agree([SEEN, MISSING]) == Finding("unknown", "The resolvers do not agree yet.")
    assert agree([UNKNOWN, MISSING, MISSING]).verdict == "missing"


def test_the_value_is_bound_to_platform_app_and_domain() -> None:
    value = record_value(b"k", 1, "shop.example.org")
    assert value.startswith("omni-verify=")
    others = {record_value(b"l", 1, "shop.example.org"), record_value(b"k", 2, "shop.example.org"),
              record_value(b"k", 1, "example.org")}  # fmt: skip
    assert value not in others
    assert len(others) == 3


def test_another_value_is_told() -> None:
    assert compare(["a", " w "], "x.org", "w").verdict == "seen"
    assert compare(["spf", "other"], "x.org", "w").detail == (
        'The TXT record at _omni-challenge.x.org says "spf", "other".'
    )


def test_resolvers_are_addresses_with_or_without_a_port() -> None:
    assert parse("192.0.2.1, [2001:db8::1]:5353,2001:db8::2, 192.0.2.2:5353") == [
        ("192.0.2.1", 53), ("2001:db8::1", 5353), ("2001:db8::2", 53), ("192.0.2.2", 5353),
    ]  # fmt: skip
    assert parse("") == []
    for bad in ("dns.example.org", "192.0.2.1:0", "192.0.2.1:x", ",".join(["192.0.2.1"] * 6)):
        with pytest.raises(ValueError, match=r"."):
            parse(bad)


# -- the DNS itself


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as made:
        yield made


def ask(*servers: DnsServer, domain: str = "shop.example.org", wanted: str = "w", timeout_s: float = 2.0) -> Finding:
    lookup = Lookup([resolver for server in servers for resolver in parse(server.address)], timeout_s)
    return lookup.ask([Question(domain, wanted)])[0]


def test_a_record_is_seen_among_others(server: DnsServer) -> None:
    server.records[record_name("shop.example.org")] = ["v=spf1", "w"]
    assert ask(server) == Finding("seen")


def test_no_record_no_name_and_another_value_are_missing(server: DnsServer) -> None:
    assert ask(server).verdict == "missing"
    server.records["_omni-challenge.shop.example.org"] = []
    assert ask(server) == Finding("missing", "There is no TXT record at _omni-challenge.shop.example.org yet.")
    server.records["_omni-challenge.shop.example.org"] = ["x" * 200]
    assert "says" in ask(server).detail
    assert ask(server, domain="a" * 60 + ".b" * 90 + ".example.org").verdict == "missing"


@pytest.mark.slow
def test_an_error_and_silence_are_unknown_and_bounded(server: DnsServer) -> None:
    server.rcode = dns.rcode.SERVFAIL
    assert ask(server).verdict == "unknown"
    server.rcode, server.silent = None, True
    begun = time.monotonic()
    silent = ask(server, timeout_s=0.3)
    assert silent.verdict == "unknown"
    assert "did not answer within 0.3 s" in silent.detail
    many = Lookup(parse(server.address), 0.3).ask([Question(f"d{number}.example.org", "w") for number in range(60)])
    assert {finding.verdict for finding in many} == {"unknown"}
    assert time.monotonic() - begun < 4


def test_a_lying_resolver_is_outvoted(server: DnsServer) -> None:
    with DnsServer() as second, DnsServer() as third:
        for honest in (server, second):
            honest.records["_omni-challenge.shop.example.org"] = ["w"]
        assert ask(server, second, third) == Finding("seen")
        second.records.clear()
        assert ask(server, second, third).verdict == "missing"
