"""DNS messages as bytes: just the queries Caddy's resolver sends and the answers it needs.

Owns the encoding, and nothing else; pure. Written by hand because it is the ingress's hot path (with more apps than
Caddy remembers, every request waits for one to three answers, and a general library takes many times as long);
dnspython checks every answer in the tests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from agent.ingress import names

A, AAAA, SRV = 1, 28, 33
UDP_SIZE = 1232  # what Go reads of an answer; more is lost
_HEADER = struct.Struct("!HHHHHH")
_ANSWERED = 0x8580  # response, authoritative, recursion desired and available
_REFUSED = 5
_OPT = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"  # root, OPT, 1232 bytes, nothing more
_TO_QUESTION = b"\xc0\x0c"


@dataclass(frozen=True, slots=True)
class Query:
    """One question; `question` is its bytes and is repeated in the answer, letter case and all."""

    name: str  # lower case, without the last dot
    kind: int
    question: bytes
    edns: bool


@dataclass(frozen=True, slots=True)
class Service:
    """One SRV record to be."""

    label: names.Label
    port: int


def parse(packet: bytes) -> Query | None:
    """The query in `packet`, or None for whatever is not a plain query with one question."""
    if len(packet) < 17:
        return None
    _, flags, questions, answers, authorities, extra = _HEADER.unpack_from(packet)
    if flags & 0xF800 or (questions, answers, authorities) != (1, 0, 0):
        return None
    labels, at = [], 12
    while at < len(packet) and (size := packet[at]):
        if size > 63:
            return None
        labels.append(packet[at + 1 : at + 1 + size])
        at += size + 1
    if at + 5 > len(packet):
        return None
    kind, of = struct.unpack_from("!HH", packet, at + 1)
    if of != 1:
        return None
    name = b".".join(labels).decode("latin-1").lower()
    return Query(name, kind, packet[12 : at + 5], extra > 0)


def answer(query: Query, records: list[bytes]) -> bytes:
    """The response to `query` without its first two bytes, the id. `records` are whole resource records."""
    head = struct.pack("!HHHHH", _ANSWERED, 1, len(records), 0, int(query.edns))
    return head + query.question + b"".join(records) + (_OPT if query.edns else b"")


def refused(query: Query) -> bytes:
    return struct.pack("!HHHHH", _ANSWERED | _REFUSED, 1, 0, 0, 0) + query.question


def address_record(label: names.Label) -> bytes:
    packed = label.ip.packed
    kind = A if len(packed) == 4 else AAAA
    return _TO_QUESTION + struct.pack("!HHIH", kind, 1, 0, len(packed)) + packed


def service_records(query: Query, services: list[Service], room: int) -> list[bytes]:
    """SRV records for as many of `services` as fit into `room` bytes of message.

    The targets of one address share its name's end by compression (RFC 2782 asks senders not to, Go reads it, and it
    is 45 instances in a UDP answer instead of 30).
    """
    at = 12 + len(query.question)
    left = room - len(_OPT)
    tails: dict[bytes, int] = {}
    found = []
    for service in services:
        head, tail = (bytes([len(part)]) + part for part in names.parts(service.label))
        pointer = tails.get(tail)
        zone = bytes([len(names.ZONE)]) + names.ZONE.encode() + b"\x00"
        target = head + (tail + zone if pointer is None else struct.pack("!H", 0xC000 | pointer))
        record = _TO_QUESTION + struct.pack("!HHIHHHH", SRV, 1, 0, 6 + len(target), 0, 0, service.port) + target
        if at + len(record) > left:
            break
        if pointer is None:
            tails[tail] = at + 18 + len(head)
        found.append(record)
        at += len(record)
    return found
