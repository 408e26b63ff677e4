"""Serializers that refuse what they do not know."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
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
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, dict) else []
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            detail = error.detail if isinstance(error.detail, dict) else {"non_field_errors": error.detail}
            raise serializers.ValidationError({**detail, **_unknown(unknown)}) from error
        if unknown:
            raise serializers.ValidationError(_unknown(unknown))
        return value


def _unknown(names: list[str]) -> dict[str, list[ErrorDetail]]:
    return {name: [ErrorDetail("There is no such field.", code="unknown_field")] for name in names}
