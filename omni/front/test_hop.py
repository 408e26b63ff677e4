"""The signed header of a forwarded request."""

from __future__ import annotations

import pytest

from omni.front.hop import Hop
from omni.front.test_front import request


def hop(member: str = "a-1", key: bytes = b"k") -> Hop:
    return Hop(key, member)


def test_a_forwarded_request_keeps_its_callers_address() -> None:
    sent = request("POST", "/app/create")
    assert hop("b-2").verify(sent, hop("a-1").sign(sent)) == "10.0.0.9"


def test_a_forged_a_changed_and_a_repeated_hop_are_refused() -> None:
    sent, receiver = request("POST", "/app/create"), hop("b-2")
    value = hop("a-1").sign(sent)
    assert receiver.verify(request("POST", "/tokens"), value) is None
    assert receiver.verify(sent, value.replace("10.0.0.9", "10.0.0.8")) is None
    assert receiver.verify(sent, hop("a-1", b"other").sign(sent)) is None
    assert receiver.verify(sent, "nonsense") is None
    assert receiver.verify(sent, value) == "10.0.0.9"
    assert receiver.verify(sent, value) is None


def test_an_old_hop_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = request("POST", "/app/create")
    value = hop().sign(sent)
    monkeypatch.setattr("omni.front.hop.time.time", lambda: 4e9)
    assert hop("b-2").verify(sent, value) is None


def test_a_hop_that_is_no_text_is_refused() -> None:
    assert hop().verify(request("POST"), "a;b;1;n;\xe9") is None
