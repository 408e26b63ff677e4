"""Messages as JSON and back: dataclasses to plain types, and plain types to dataclasses with every field checked.

Owns the rule by which neighbouring versions understand each other (unknown fields are ignored, missing ones take their
default), and knows no message. Shared with `instances`, which is why it may import neither Django nor anything of ours.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar

Message = TypeVar("Message")


def to_json(message: Any) -> dict[str, Any]:
    """The message as plain JSON types."""
    return dataclasses.asdict(message)


def from_json(kind: type[Message], data: object) -> Message:
    """Read a message of `kind`; unknown fields are ignored, missing ones take their default.

    Raises ValueError (with the path of the field) for a wrong type or a missing field without default.
    """
    return typing.cast(Message, _read(kind, data, kind.__name__))


def _read(kind: Any, data: Any, path: str) -> Any:
    if kind is Any:
        return data
    origin = typing.get_origin(kind)
    if origin is typing.Union or origin is types.UnionType:
        return _read_union(kind, data, path)
    if origin is Literal:
        if data not in typing.get_args(kind):
            raise ValueError(f"{path}: {data!r} is none of {typing.get_args(kind)}")
        return data
    if origin in (list, tuple):
        return _read_sequence(kind, origin, data, path)
    if origin is dict:
        if not isinstance(data, dict):
            raise ValueError(f"{path}: an object is wanted")
        value_kind = typing.get_args(kind)[1]
        return {str(key): _read(value_kind, value, f"{path}.{key}") for key, value in data.items()}
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, data, path)
    return _read_scalar(kind, data, path)


def _read_union(kind: Any, data: Any, path: str) -> Any:
    options = typing.get_args(kind)
    if data is None and type(None) in options:
        return None
    (other,) = [option for option in options if option is not type(None)]
    return _read(other, data, path)


def _read_sequence(kind: Any, origin: Any, data: Any, path: str) -> Any:
    if not isinstance(data, (list, tuple)):
        raise ValueError(f"{path}: a list is wanted")
    args = typing.get_args(kind)
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        if len(data) != len(args):
            raise ValueError(f"{path}: {len(args)} items are wanted")
        return tuple(_read(arg, item, f"{path}[{i}]") for i, (arg, item) in enumerate(zip(args, data, strict=True)))
    items = [_read(args[0], item, f"{path}[{i}]") for i, item in enumerate(data)]
    return items if origin is list else tuple(items)


_HINTS: dict[type, dict[str, Any]] = {}


def _read_dataclass(kind: Any, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{path}: an object is wanted")
    hints = _HINTS.get(kind)
    if hints is None:
        hints = _HINTS[kind] = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(kind):
        if spec.name in data:
            values[spec.name] = _read(hints[spec.name], data[spec.name], f"{path}.{spec.name}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ValueError(f"{path}.{spec.name}: missing")
    return kind(**values)


def _read_scalar(kind: Any, data: Any, path: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise ValueError(f"{path}: {kind.__name__} is wanted, not {type(data).__name__}")
    return data
