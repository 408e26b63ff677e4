"""The definition of a service as it comes in and as it is stored.

Owns validation that names each mistake by its place in the input, and the merge of a patch. Fields and their bounds are
in `omni.kernel.service_keys`, which config.json shares.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
from pydantic import TypeAdapter, ValidationError

from omni.kernel import service_keys
from omni.kernel.errors import FieldError, InvalidInput
from omni.kernel.service_keys import AnyCheck, Definition, ServiceKeys
from sandbox.addresses import AddressPolicy
from services.models import Service

PLATFORM_PREFIX = "platform:"
# what the vantage points do depends on these: a change of one begins a new definition
WATCHING = ("check_spec", "interval_s", "timeout_s", "healthy_threshold", "unhealthy_threshold", "vantage_points")
_CHECK: TypeAdapter[Any] = TypeAdapter(AnyCheck)
_CODES = {"extra_forbidden": "unknown_field", "missing": "required", "union_tag_invalid": "invalid"}
_UNIONS = ("check", "remedy")
_Keys = TypeVar("_Keys", bound=Definition)


@dataclass(frozen=True, slots=True)
class Given:
    """A checked definition as columns of `Service`; `remedy_secret` in the clear, `app` as it was referred to."""

    columns: dict[str, Any]
    remedy_secret: str


def read(data: Any) -> Given:
    """Raises InvalidInput with every mistake."""
    return _given(_validated(ServiceKeys, data))


def of_keys(keys: ServiceKeys) -> Given:
    """From the configuration, which was checked when it was loaded."""
    return _given(keys)


def patched(service: Service, data: Any, remedy_secret: str) -> Given:
    """The definition after a merge patch. Raises InvalidInput."""
    if not isinstance(data, dict):
        raise InvalidInput("An object is wanted.", errors=[FieldError("/", "invalid", "An object is wanted.")])
    current = definition(service)
    if current["remedy"] is not None and current["remedy"]["type"] == "webhook":
        current["remedy"]["secret"] = remedy_secret
    whole = dict(current)
    for name, value in data.items():
        before = current.get(name)
        same_kind = (
            isinstance(before, dict) and isinstance(value, dict) and value.get("type", before["type"]) == before["type"]
        )
        whole[name] = {**before, **value} if same_kind and before is not None else value
    if "timeout_s" not in data and current["timeout_s"] == min(service_keys.TIMEOUT_S, current["interval_s"]):
        del whole["timeout_s"]  # nobody has named it: it goes with the interval
    for name in Definition.model_fields:
        if whole.get(name) is None and name not in ("vantage_points", "remedy"):
            whole.pop(name, None)  # null means the default again
    if service.source == "platform":
        return _patched_part(service, whole)
    return read(whole)


def _patched_part(service: Service, whole: dict[str, Any]) -> Given:
    """Its name and check are no one's to give, so they need not be of the kinds that can be given; a change of them is
    refused by the verb."""
    fixed = {name: whole.pop(name, None) for name in ("name", "check")}
    columns = service_keys.as_json(_validated(Definition, whole))
    return Given({**columns, "name": fixed["name"], "check_spec": fixed["check"]}, "")


def definition(service: Service) -> dict[str, Any]:
    """As it was given, without the secret."""
    return {
        "name": service.name,
        "description": service.description,
        "check": dict(service.check_spec),
        "interval_s": service.interval_s,
        "timeout_s": service.timeout_s,
        "healthy_threshold": service.healthy_threshold,
        "unhealthy_threshold": service.unhealthy_threshold,
        "start_period_s": service.start_period_s,
        "vantage_points": service.vantage_points,
        "severity": service.severity,
        "owner": service.owner,
        "depends_on": list(service.depends_on),
        "remedy": dict(service.remedy) if service.remedy is not None else None,
    }


def columns_of_part(check: Mapping[str, Any]) -> dict[str, Any]:
    """The check of one of the platform's own parts. Raises ValidationError for a mistake of ours."""
    return service_keys.as_json(_CHECK.validate_python(dict(check)))


def refused_address(check: Mapping[str, Any], policy: AddressPolicy) -> FieldError | None:
    """For an address written as one, what the policy has against it. Names are looked up when the check runs."""
    pointer = "/check/url" if check["type"] == "http" else "/check/host"
    host = urlsplit(check["url"]).hostname or "" if check["type"] == "http" else check.get("host", "")
    with contextlib.suppress(ValueError):
        why = policy.why_not(str(ipaddress.ip_address(host)))
        return FieldError(pointer, "address_refused", why) if why else None
    return None


def _given(keys: ServiceKeys) -> Given:
    columns = service_keys.as_json(keys)
    columns["check_spec"] = columns.pop("check")
    secret = ""
    if columns["remedy"] is not None:
        secret = columns["remedy"].pop("secret", "")
    return Given(columns, secret)


def _validated(kind: type[_Keys], data: Any) -> _Keys:
    try:
        return kind.model_validate_json(orjson.dumps(data))
    except ValidationError as error:
        raise InvalidInput(errors=[_field_error(item) for item in error.errors()]) from None


def _field_error(item: Any) -> FieldError:
    place = [str(part) for part in item["loc"]]
    if len(place) > 1 and place[0] in _UNIONS:
        del place[1]  # pydantic names the kind that it tried
    pointer = "/" + "/".join(place)
    detail = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        detail = "There is no such field."
    return FieldError(pointer, _CODES.get(item["type"], "invalid"), detail[:1].upper() + detail[1:])
