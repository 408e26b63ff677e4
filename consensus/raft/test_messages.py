"""Members' messages: what goes in comes out, and nothing else does."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.raft.messages import COMMAND_MAX, BadMessage, decode, encode

SENT: list[dict[str, Any]] = [
    {"type": "append_entries", "term": 3, "commit_index": 9, "at": 1, "entries": [], "prevLogIdx": 9, "prevLogTerm": 3},
    {
        "type": "append_entries",
        "term": 3,
        "commit_index": 9,
        "at": 1,
        "entries": [(b"\x00{}", 10, 3), (b"\x01", 11, 3)],
        "prevLogIdx": None,
        "prevLogTerm": None,
    },
    {"type": "append_entries", "term": 3, "commit_index": 9, "at": 1, "serialized": (os.urandom(65536), True, False)},
    {"type": "append_entries", "term": 3, "commit_index": 9, "at": 1, "serialized": None},
    {"type": "next_node_idx", "next_node_idx": 5, "reset": False, "success": True, "term": 3, "echo": 123456789},
    {"type": "request_vote", "term": 4, "last_log_index": 9, "last_log_term": 3},
    {"type": "response_vote", "term": 4},
    {"type": "timeout_now", "term": 4},
    {"type": "apply_command", "command": b"\x00{}", "request_id": 3},
    {"type": "apply_command_response", "request_id": 3, "log_idx": 9, "log_term": 3},
    {"type": "apply_command_response", "request_id": 3, "error": 4},
    {"type": "pre_vote", "term": 4, "round": 1, "last_log_index": 9, "last_log_term": 3},
    {"type": "pre_vote_answer", "term": 4, "round": 1, "granted": False},
    {"type": "higher_term", "term": 9},
    {"type": "ping", "able": True, "version": "0.1.0", "term": 1, "applied": 4, "fresh": False},
    {"type": "transfer", "number": 1, "to": None},
    {"type": "transfer_answer", "number": 1, "error": "", "leader": "a-1"},
    {"type": "bye", "reason": "no member"},
]


def tuples(value: Any) -> Any:
    return tuple(tuples(item) for item in value) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("message", SENT, ids=lambda message: str(message["type"]))
def test_what_goes_in_comes_out(message: dict[str, Any]) -> None:
    assert decode(encode(message)) == {name: tuples(value) for name, value in message.items()}


@given(st.binary(max_size=200))
def test_strange_bytes_are_refused(frame: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(frame)


@given(st.sampled_from(SENT), st.data())
def test_a_field_that_is_not_what_it_should_be_is_refused(message: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(message)))
    wrong = data.draw(st.sampled_from([-1, 2**63, 1.5, "x" * 2000, [1], {"a": 1}, b""]))
    with pytest.raises(BadMessage):
        decode(msgpack.packb({**message, name: wrong}))
    with pytest.raises(BadMessage):
        decode(msgpack.packb({**message, "more": 1}))


class Bomb:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("/tmp/never-made-by-raft",))


def test_a_pickle_is_refused_and_never_opened() -> None:
    for bomb in (pickle.dumps(Bomb()), msgpack.packb({"type": "apply_command", "command": pickle.dumps(Bomb())})[:-1]):
        with pytest.raises(BadMessage):
            decode(bomb)
    assert not Path("/tmp/never-made-by-raft").exists()


def test_a_command_that_pysyncobj_would_split_and_unpickle_is_refused() -> None:
    with pytest.raises(BadMessage):
        decode(encode({"type": "apply_command", "command": b"x" * (COMMAND_MAX + 2)}))
    with pytest.raises(BadMessage):
        decode(encode({**SENT[0], "transmission": "finish", "data": b"x"}))
