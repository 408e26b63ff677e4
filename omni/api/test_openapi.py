"""The OpenAPI document is one: whatever a field says of itself keeps to the standard."""

from __future__ import annotations

import pytest
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema


@pytest.mark.slow
def test_the_document_is_valid_and_has_the_tasks_of_an_app() -> None:
    document = SchemaGenerator().get_schema(request=None, public=True)
    validate_schema(document)
    assert {"/app/{app}/run", "/app/{app}/tasks", "/app/{app}/cron/{name}"} <= document["paths"].keys()
