"""The resolver's answers, each read back with dnspython."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ingress import names, wire
from agent.ingress.probe import Prober
from agent.ingress.resolver import TCP_SIZE, Answers
from agent.routing import HostRoute, Target

ids = st.integers(1, 2**31)
ips = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
labels = st.builds(names.Label, st.one_of(st.just(0), ids), ids, ips)


def make(routes: Sequence[HostRoute], refusing: Sequence[tuple[str, int]] = ()) -> Answers:
    hosts = {route.host: route for route in routes}
    prober = Prober(list)
    prober._refusing.update(refusing)
    return Answers(hosts.get, prober.answering, prober.ip_of, 4444)


def ask(answers: Answers, name: str, kind: str = "SRV", room: int = wire.UDP_SIZE) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
    packet = answers.answer(query.to_wire(), room)
    assert packet is not None
    assert len(packet) <= room
    response = dns.message.from_wire(packet)
    assert query.is_response(response)
    return response


def services(response: dns.message.Message) -> set[tuple[int, int, str, int]]:
    found = set()
    for record in (record for rrset in response.answer for record in rrset):
        label = names.decode(record.target.to_text())
        assert label is not None
        found.add((label.instance_id, label.app_id, str(label.ip), record.port))
    return found


@given(labels)
def test_a_name_says_what_went_into_it(label: names.Label) -> None:
    assert names.decode(names.encode(label)) == label
    assert names.decode(names.encode(label).upper().rstrip(".")) == label


@given(labels)
def test_the_address_of_a_name_needs_no_table(label: names.Label) -> None:
    kind, other = ("A", "AAAA") if label.ip.version == 4 else ("AAAA", "A")
    found = ask(make([]), names.encode(label), kind)
    assert [ipaddress.ip_address(record.address) for record in found.answer[0]] == [label.ip]
    none = ask(make([]), names.encode(label), other)
    assert (none.rcode(), none.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.slow
@given(st.sets(st.tuples(ids, st.ip_addresses(), st.integers(1, 65535)), max_size=25), ids)
def test_srv_names_every_instance(members: set[tuple[int, ipaddress.IPv4Address, int]], app: int) -> None:
    route = HostRoute("a.localhost", app, False, [Target(i, str(ip), port) for i, ip, port in members])
    wanted = {(i, app, str(ip), port) for i, ip, port in members} or {(0, app, "127.0.0.1", 4444)}
    assert services(ask(make([route]), "A.LocalHost.omni.", room=TCP_SIZE)) == wanted


@pytest.mark.slow
def test_a_large_set_fills_a_datagram_with_others_each_time() -> None:
    route = HostRoute("a.localhost", 7, False, [Target(i, "127.0.0.1", 20000 + i) for i in range(1, 201)])
    answers = make([route])
    seen: set[int] = set()
    for _ in range(60):
        some = services(ask(answers, "a.localhost.omni."))
        assert len(some) >= 40
        seen |= {instance for instance, *_ in some}
    assert seen == set(range(1, 201))
    assert len(services(ask(answers, "a.localhost.omni.", room=TCP_SIZE))) == 200


def test_unknown_hosts_maintenance_and_empty_sets_lead_to_the_pages() -> None:
    target = Target(1, "127.0.0.1", 20000)
    answers = make([HostRoute("none.x", 2), HostRoute("closed.x", 3, True, [target])])
    for host, app in (("unknown.x", 0), ("none.x", 2), ("closed.x", 3)):
        assert services(ask(answers, f"{host}.omni.")) == {(0, app, "127.0.0.1", 4444)}


def test_what_refuses_is_left_out_but_never_everybody() -> None:
    route = HostRoute("a.x", 1, False, [Target(1, "127.0.0.1", 1), Target(2, "127.0.0.1", 2)])
    one = make([route], [("127.0.0.1", 1)])
    assert services(ask(one, "a.x.omni.")) == {(2, 1, "127.0.0.1", 2)}
    both = make([route], [("127.0.0.1", 1), ("127.0.0.1", 2)])
    assert len(services(ask(both, "a.x.omni."))) == 2


def test_other_zones_and_kinds_are_answered_shortly() -> None:
    answers = make([])
    assert ask(answers, "example.org.", "A").rcode() == dns.rcode.REFUSED
    assert ask(answers, "a.x.omni.", "TXT").answer == []


@given(st.binary(max_size=80))
def test_rubbish_gets_no_answer_and_does_no_harm(packet: bytes) -> None:
    found = make([]).answer(packet, wire.UDP_SIZE)
    assert found is None or found[:2] == packet[:2]


def test_answers_are_remembered_until_something_changes() -> None:
    hosts = {"a.x": HostRoute("a.x", 1, False, [Target(1, "127.0.0.1", 1)])}
    prober = Prober(list)
    answers = Answers(hosts.get, prober.answering, prober.ip_of, 4444)
    assert services(ask(answers, "a.x.omni.")) == {(1, 1, "127.0.0.1", 1)}
    hosts["a.x"] = HostRoute("a.x", 1, False, [Target(2, "127.0.0.1", 2)])
    assert services(ask(answers, "a.x.omni.")) == {(1, 1, "127.0.0.1", 1)}
    answers.forget()
    assert services(ask(answers, "a.x.omni.")) == {(2, 1, "127.0.0.1", 2)}
