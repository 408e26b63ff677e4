"""The OpenAPI document: what drf-spectacular cannot know by itself.

Owns the hooks: internal routes stay out, every operation names the problems it may answer with.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema

_PROBLEMS = {
    "400": "Malformed",
    "401": "Credentials are missing or not valid",
    "403": "The token lacks the scope",
    "404": "No such object, or another org's",
    "409": "Conflict with the object's state",
    "412": "Stale If-Match",
    "413": "The body is too large",
    "415": "Unsupported media type",
    "422": "Invalid fields",
    "429": "Too many requests; see Retry-After",
    "503": "No leader, or the database does not answer; see Retry-After",
    "504": "The outcome is unknown; repeat with the same Idempotency-Key",
}
_INTERNAL = ("/agent/", "/internal/", "/admin", "/static")


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "accounts.authentication.RequestActorAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "An API token: `omni_…`"}


class OmniAutoSchema(AutoSchema):
    """Tags an operation by the noun of its path."""

    def get_tags(self) -> list[str]:
        parts = [part for part in self.path.split("/") if part and not part.startswith("{")]
        return [parts[0] if parts else "platform"]


def public_routes_only(endpoints: list[tuple[str, str, str, Any]]) -> list[tuple[str, str, str, Any]]:
    return [endpoint for endpoint in endpoints if not endpoint[0].startswith(_INTERNAL)]


def as_openapi_3_0(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """What pydantic writes as JSON Schema 2020 and OpenAPI 3.0 says in another way: `const`, and `null` as a type."""
    waiting: list[Any] = [result]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("type"), str) and "const" in node:
                node["enum"] = [node.pop("const")]
            _nullable(node)
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return result


def _nullable(node: dict[str, Any]) -> None:
    choices = node.get("anyOf")
    if not isinstance(choices, list) or {"type": "null"} not in choices:
        return
    rest = [choice for choice in node.pop("anyOf") if choice != {"type": "null"}]
    node["nullable"] = True
    if len(rest) > 1:
        node["anyOf"] = rest
    elif "$ref" in rest[0]:
        node["allOf"] = rest  # a reference has no neighbours
    else:
        node.update(rest[0])


def add_problems(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = _problem_schema()
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for methods in result.get("paths", {}).values():
        for method, operation in methods.items():
            for status, meaning in _PROBLEMS.items():
                if method == "get" and status in ("409", "412", "413", "415", "504"):
                    continue
                operation.setdefault("responses", {}).setdefault(status, {"description": meaning, "content": content})
    return result


def _problem_schema() -> dict[str, Any]:
    text, error_keys = {"type": "string"}, ("pointer", "code", "detail")
    entry = {"type": "object", "properties": dict.fromkeys(error_keys, text), "required": list(error_keys)}
    return {
        "type": "object",
        "description": "RFC 9457. `code` is stable; `next` names the call or command that helps.",
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": text,
            "request_id": text,
            "next": text,
            "errors": {"type": "array", "items": entry},
        },
        "required": ["type", "title", "status", "detail", "code", "request_id"],
    }
