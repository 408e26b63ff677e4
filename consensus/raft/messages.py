"""What members say to each other, as bytes: msgpack maps, each field of each message checked.

Owns the list of messages. PySyncObj hands over dictionaries with tuples and bytes in them; they come out the same at
the other end, and nothing else comes out: an unknown type, field or value is refused, and nothing received is ever
unpickled. A command inside is bytes here (core knows it as JSON).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

FRAME_MAX = 1 << 20  # a snapshot travels in chunks of 64 KiB, commands are at most COMMAND_MAX
COMMAND_MAX = 32 << 10  # PySyncObj would split entries of 64 KiB, and unpickle what it puts together
_INTEGER_MAX = 2**63 - 1

Message = dict[str, Any]


class BadMessage(Exception):
    """These bytes are no message of this version; the connection that brought them is closed."""


def encode(message: Message) -> bytes:
    packed: bytes = msgpack.packb(message, use_bin_type=True)
    return packed


def decode(frame: bytes) -> Message:
    """Raises BadMessage."""
    try:
        message = msgpack.unpackb(frame, raw=False, use_list=False)
    except Exception as error:  # msgpack raises ValueErrors, UnicodeErrors and exceptions of its own
        raise BadMessage(f"no msgpack: {type(error).__name__}") from error
    if not isinstance(message, dict):
        raise BadMessage("no map")
    kind = message.get("type")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise BadMessage("no message of this version")
    fields = _FIELDS[kind]
    for name, value in message.items():
        check = fields.get(name)
        if check is None or not check(value):
            raise BadMessage(f"{kind}: {str(name)[:40]} is not allowed or not what it should be")
    missing = _REQUIRED[kind] - message.keys()
    if missing:
        raise BadMessage(f"{kind}: lacks {', '.join(sorted(missing))}")
    return message


def _integer(value: object) -> bool:
    return type(value) is int and 0 <= value <= _INTEGER_MAX


def _integer_or_none(value: object) -> bool:
    return value is None or _integer(value)


def _boolean(value: object) -> bool:
    return isinstance(value, bool)


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 1024


def _text_or_none(value: object) -> bool:
    return value is None or _text(value)


def _command(value: object) -> bool:
    return isinstance(value, bytes) and 0 < len(value) <= COMMAND_MAX + 1


def _entries(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(entry, tuple)
        and len(entry) == 3
        and _command(entry[0])
        and _integer(entry[1])
        and _integer(entry[2])
        for entry in value
    )


def _chunk(value: object) -> bool:
    """None: the leader is still writing its snapshot."""
    return value is None or (
        isinstance(value, tuple)
        and len(value) == 3
        and isinstance(value[0], bytes)
        and _boolean(value[1])
        and _boolean(value[2])
    )


Check = Callable[[object], bool]
_OPTIONAL = {
    "append_entries": {"entries", "prevLogIdx", "prevLogTerm", "serialized"},
    "apply_command": {"request_id"},
    "apply_command_response": {"error", "log_idx", "log_term"},
}
_FIELDS: dict[str, dict[str, Check]] = {
    # PySyncObj's own
    "append_entries": {
        "term": _integer,
        "commit_index": _integer,
        "at": _integer,  # when the leader sent it, on its own clock; comes back as `echo`
        "entries": _entries,
        "prevLogIdx": _integer_or_none,
        "prevLogTerm": _integer_or_none,
        "serialized": _chunk,
    },
    "next_node_idx": {
        "next_node_idx": _integer,
        "reset": _boolean,
        "success": _boolean,
        "term": _integer,
        "echo": _integer,
    },
    "request_vote": {"term": _integer, "last_log_index": _integer, "last_log_term": _integer},
    "response_vote": {"term": _integer},
    "timeout_now": {"term": _integer},
    "apply_command": {"command": _command, "request_id": _integer},
    "apply_command_response": {
        "request_id": _integer,
        "error": _integer,
        "log_idx": _integer,
        "log_term": _integer,
    },
    # Ours
    "pre_vote": {"term": _integer, "round": _integer, "last_log_index": _integer, "last_log_term": _integer},
    "pre_vote_answer": {"term": _integer, "round": _integer, "granted": _boolean},
    "higher_term": {"term": _integer},
    "ping": {"able": _boolean, "version": _text, "term": _integer, "applied": _integer, "fresh": _boolean},
    "transfer": {"number": _integer, "to": _text_or_none},
    "transfer_answer": {"number": _integer, "error": _text, "leader": _text},
    "bye": {"reason": _text},
}
_REQUIRED = {kind: {"type", *fields} - _OPTIONAL.get(kind, set()) for kind, fields in _FIELDS.items()}
for _fields in _FIELDS.values():
    _fields["type"] = _text
