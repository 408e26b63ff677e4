"""Serializers that refuse what they do not know, and cost no more than what was sent.

Owns how an input shape is checked. DRF copies all fields of a serializer for every request and asks each of them; here
they are bound once per thread, and an optional field that nobody filled in is not asked.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.fields import SkipField, empty
from rest_framework.utils.serializer_helpers import BindingDict

_threads = threading.local()


@dataclass(frozen=True, slots=True)
class _Bound:
    """The declared fields of a shape, bound to a serializer that holds nobody's input."""

    blank: StrictSerializer
    fields: BindingDict
    checks: tuple[tuple[str, Any, Any, bool], ...]  # name, field, its `validate_<name>`, asked even when absent


class StrictSerializer(serializers.Serializer[Any]):
    """An input shape: an unknown field is an error (a misspelt one would be ignored in silence otherwise)."""

    @classmethod
    def read(cls, data: Any) -> dict[str, Any]:
        """The values of an input, checked. Raises ValidationError."""
        if data is None:
            cls(data=None).is_valid(raise_exception=True)
        return dict(_bound(cls, False).blank.run_validation(data))

    @cached_property
    def fields(self) -> BindingDict:
        return _bound(type(self), self.partial).fields

    def to_internal_value(self, data: Any) -> Any:
        """The checked values; every problem of every field at once, unknown fields included."""
        if type(data) is not dict:
            return super().to_internal_value(data)  # refuses it
        bound = _bound(type(self), self.partial)
        value: dict[str, Any] = {}
        problems: dict[str, Any] = {}
        for name, field, check, always in bound.checks:
            if name in data or always:
                try:
                    found = field.run_validation(data.get(name, empty))
                    value[name] = found if check is None else check(self, found)
                except serializers.ValidationError as error:
                    problems[name] = error.detail
                except SkipField:
                    continue
        for name in sorted(data.keys() - bound.fields.fields.keys()):
            problems[name] = [ErrorDetail("There is no such field.", code="unknown_field")]
        if problems:
            raise serializers.ValidationError(problems)
        return value

    def run_validators(self, value: Any) -> None:
        """None: what concerns several fields is said in `validate`."""


def _bound(kind: type[StrictSerializer], partial: bool) -> _Bound:
    kept: dict[Any, _Bound] = _threads.__dict__.setdefault("bound", {})
    found = kept.get((kind, partial))
    if found is None:
        blank = kind(partial=partial)
        fields: BindingDict = serializers.Serializer.fields.__get__(blank, kind)
        blank.__dict__["fields"] = fields
        checks = tuple(
            (
                str(name),
                field,
                getattr(kind, f"validate_{name}", None),
                (field.required and not partial) or field.default is not empty,
            )
            for name, field in fields.items()
        )
        found = kept[kind, partial] = _Bound(blank, fields, checks)
    return found
