"""Serializers that refuse what they do not know."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.fields import SkipField, empty
from rest_framework.utils.serializer_helpers import BindingDict

_bound = threading.local()


class StrictSerializer(serializers.Serializer[Any]):
    """An input shape: an unknown field is an error (a misspelt one would be ignored in silence otherwise)."""

    @cached_property
    def fields(self) -> BindingDict:
        """The declared fields, bound once per thread: DRF copies all of them for every request otherwise."""
        kept: dict[Any, BindingDict] = _bound.__dict__.setdefault("fields", {})
        key = (type(self), self.partial)
        if key not in kept:
            blank = type(self)(partial=self.partial)  # holds nobody's input
            kept[key] = serializers.Serializer.fields.__get__(blank, type(blank))
        return kept[key]

    def to_internal_value(self, data: Any) -> Any:
        """The checked values; every problem of every field at once, unknown fields included."""
        if type(data) is not dict:
            return super().to_internal_value(data)  # refuses it
        value: dict[str, Any] = {}
        problems: dict[str, Any] = {}
        for name, field, check in self._looked_at(data):
            try:
                found = field.run_validation(data.get(name, empty))
                value[name] = found if check is None else check(self, found)
            except serializers.ValidationError as error:
                problems[name] = error.detail
            except SkipField:
                continue
        for name in sorted(data.keys() - self.fields.keys()):
            problems[name] = [ErrorDetail("There is no such field.", code="unknown_field")]
        if problems:
            raise serializers.ValidationError(problems)
        return value

    def run_validators(self, value: Any) -> None:
        """None: what concerns several fields is said in `validate`."""

    def _looked_at(self, data: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """Of a long form only what was filled in, or has to be: an absent optional field says nothing."""
        kind, partial = type(self), self.partial
        for name, field in self.fields.items():
            if name in data or (field.required and not partial) or field.default is not empty:
                yield name, field, getattr(kind, f"validate_{name}", None)
