"""What an app's fields may hold: the input shapes of create, PATCH and configuration.

Owns validation that needs nothing but the input itself. What depends on other rows (unique names, quotas) is decided
in the gate, by `services`.
"""

from __future__ import annotations

import re
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from apps import processes, runtimes
from omni.rest.fields import StrictSerializer

NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
RESERVED_NAMES = frozenset({"create", "admin", "api", "www"})
_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# What the platform sets itself, and what would change how the sandbox's own programs start.
_ENV_DENIED = re.compile(r"OMNI_.*|LD_.*|PORT|BASH_ENV|ENV|PYTHONHOME|PYTHONSTARTUP|PATH|HOME", re.IGNORECASE)
_ENV_VALUE_MAX = 32 * 1024
_ENV_KEYS_MAX = 500
_PROCESSES_MAX = 32
_HOST = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_PERCENT = re.compile(r"[0-9]{1,4}%", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")


def refuse(code: str, detail: str, field: str | None = None) -> serializers.ValidationError:
    """A refusal of the whole input, or of one `field` of it."""
    problem = [ErrorDetail(detail, code=code)]
    return serializers.ValidationError(problem if field is None else {field: problem})


def check_name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise refuse("invalid_name", "Lower-case letters, digits and hyphens, beginning with a letter; at most 63.")
    if value in RESERVED_NAMES:
        raise refuse("reserved_name", f"{value} is reserved.")
    return value


class EnvField(serializers.Field[Any, Any, Any, Any]):
    """`{"KEY": "value", "SECRET": {"value": "…", "secret": true}, "OLD": null}`; null removes."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise refuse("not_an_object", "An object of names and values is wanted.")
        if len(data) > _ENV_KEYS_MAX:
            raise refuse("too_many", f"At most {_ENV_KEYS_MAX} variables.")
        problems = {key: [problem] for key, value in data.items() if (problem := self._problem(key, value))}
        if problems:
            raise serializers.ValidationError(problems)
        return dict(data)

    def to_representation(self, value: Any) -> Any:
        return value

    def _problem(self, key: str, value: Any) -> Any:
        if not _ENV_KEY.fullmatch(key):
            return ErrorDetail("Letters, digits and _ only, not beginning with a digit.", "invalid_key")
        if _ENV_DENIED.fullmatch(key):
            return ErrorDetail("The platform sets this variable itself.", "reserved_key")
        if value is None:
            return None
        if isinstance(value, dict):
            if set(value) - {"value", "secret"} or not isinstance(value.get("secret", True), bool):
                return ErrorDetail('Only {"value": …, "secret": true} is wanted.', "invalid")
            value = value.get("value")
            if value is None:
                return None  # {"secret": true} as it was read: keep it
        if not isinstance(value, str) or "\0" in value or len(value) > _ENV_VALUE_MAX:
            return ErrorDetail("Text of at most 32 KiB without NUL is wanted.", "invalid")
        return None


class HealthCheckFields(StrictSerializer):
    type = serializers.ChoiceField(choices=["http", "tcp", "exec", "process"], required=False)
    path = serializers.RegexField(r"^/[\x21-\x7e]*$", max_length=1024, required=False)
    command = serializers.CharField(max_length=4096, required=False)
    interval_s = serializers.FloatField(min_value=0.1, max_value=3600, required=False)
    timeout_s = serializers.FloatField(min_value=0.1, max_value=600, required=False)
    healthy_threshold = serializers.IntegerField(min_value=1, max_value=100, required=False)
    unhealthy_threshold = serializers.IntegerField(min_value=1, max_value=100, required=False)
    start_period_s = serializers.FloatField(min_value=0, max_value=86400, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("type") == "exec" and not attrs.get("command"):
            raise refuse("required", "An exec check needs a command.", "command")
        return attrs


@extend_schema_field({"oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+%$"}]})
class AmountField(serializers.Field[Any, Any, Any, Any]):
    """A count of instances, or a percentage of them such as `"25%"`."""

    def to_internal_value(self, data: Any) -> int | str:
        if isinstance(data, int) and not isinstance(data, bool) and 0 <= data <= 1000:
            return data
        if isinstance(data, str) and _PERCENT.fullmatch(data) and int(data[:-1]) <= 1000:
            return data
        raise refuse("invalid", 'A count from 0 to 1000, or a percentage such as "25%", is wanted.')

    def to_representation(self, value: Any) -> Any:
        return value


class StrategyFields(StrictSerializer):
    """How deployments go. A field that the chosen type does not use has no effect; null means its default (but for
    `max_latency_factor`: latency is not judged)."""

    type = serializers.ChoiceField(choices=["rolling", "recreate", "blue_green", "canary"], required=False)
    max_surge = AmountField(required=False, allow_null=True)
    max_unavailable = AmountField(required=False, allow_null=True)
    min_ready_s = serializers.FloatField(min_value=0, max_value=3600, required=False, allow_null=True)
    progress_deadline_s = serializers.FloatField(min_value=1, max_value=86400, required=False, allow_null=True)
    auto_revert = serializers.BooleanField(required=False)
    watch_s = serializers.FloatField(min_value=0, max_value=86400, required=False, allow_null=True)
    canary_percent = serializers.IntegerField(min_value=1, max_value=99, required=False, allow_null=True)
    bake_s = serializers.FloatField(min_value=0, max_value=86400, required=False, allow_null=True)
    promote = serializers.ChoiceField(choices=["auto", "manual"], required=False)
    keep_warm_s = serializers.FloatField(min_value=0, max_value=86400, required=False, allow_null=True)
    max_error_increase = serializers.FloatField(min_value=0, max_value=1, required=False, allow_null=True)
    max_latency_factor = serializers.FloatField(min_value=1, max_value=1000, required=False, allow_null=True)
    release_timeout_s = serializers.FloatField(min_value=1, max_value=86400, required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("max_surge") in (0, "0%") and attrs.get("max_unavailable") in (None, 0, "0%"):
            detail = "max_surge and max_unavailable cannot both be 0: nothing could ever be replaced."
            raise refuse("impossible", detail, "max_surge")
        return attrs


class ConstraintFields(StrictSerializer):
    label = serializers.CharField(max_length=128)  # type: ignore[assignment]  # the contract names it so
    op = serializers.ChoiceField(choices=["=", "!=", "in", "not_in", "exists"], required=False, default="=")
    value = serializers.JSONField(required=False)


class PlacementFields(StrictSerializer):
    """Where instances go: which nodes may take them, and which of those comes first."""

    strategy = serializers.ChoiceField(choices=["spread", "binpack"], required=False)
    anti_affinity = serializers.ChoiceField(choices=["preferred", "required", "off"], required=False)
    spread_by = serializers.CharField(max_length=128, required=False, allow_blank=True)
    constraints = ConstraintFields(many=True, required=False)


class ProcessFields(StrictSerializer):
    """One process type: how many, and what it has of its own; null takes back what was set."""

    instances = serializers.IntegerField(min_value=0, max_value=10_000, required=False)
    memory_mb = serializers.IntegerField(min_value=4, max_value=1_048_576, required=False, allow_null=True)
    cpu = serializers.FloatField(min_value=0.01, max_value=1024, required=False, allow_null=True)
    cpu_limit = serializers.FloatField(min_value=0.01, max_value=1024, required=False, allow_null=True)
    health_check = HealthCheckFields(required=False, allow_null=True)
    restart_policy = serializers.ChoiceField(
        choices=["always", "on_failure", "never"], required=False, allow_null=True
    )  # fmt: skip
    stop_timeout_s = serializers.FloatField(min_value=0, max_value=3600, required=False, allow_null=True)


@extend_schema_field(serializers.DictField(child=ProcessFields(allow_null=True)))
class ProcessesField(serializers.Field[Any, Any, Any, Any]):
    """`{"worker": {"instances": 2, "memory_mb": 128}, "old": null}`: by process type, null forgets it."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise refuse("not_an_object", "An object of process types is wanted.")
        if len(data) > _PROCESSES_MAX:
            raise refuse("too_many", f"At most {_PROCESSES_MAX} process types.")
        read: dict[str, Any] = {}
        problems: dict[str, Any] = {}
        for name, wanted in data.items():
            try:
                read[name] = self._one(name, wanted)
            except serializers.ValidationError as error:
                problems[name] = error.detail
        if problems:
            raise serializers.ValidationError(problems)
        return read

    def _one(self, name: str, wanted: Any) -> dict[str, Any] | None:
        if not processes.NAME.fullmatch(name):
            raise refuse("invalid_name", "Letters, digits, - and _, beginning with a letter; at most 32.")
        if name == processes.RELEASE:
            raise refuse("reserved_name", "release is the command before a rollout; no instances run it.")
        if wanted is None:
            return None
        found = ProcessFields.read(wanted)
        if name == processes.WEB:
            nothing = [key for key, value in found.items() if value is None and key != "cpu_limit"]
            if nothing:
                raise refuse("required", "web takes a value here.", nothing[0])
        return found

    def to_representation(self, value: Any) -> Any:
        return value


class TrafficFields(StrictSerializer):
    """What the ingress does for the app. 0 means no limit; every ingress counts for itself."""

    sticky = serializers.BooleanField(required=False)
    requests_per_second = serializers.FloatField(min_value=0, max_value=1_000_000, required=False)
    burst = serializers.IntegerField(min_value=0, max_value=1_000_000, required=False)
    max_body_mb = serializers.IntegerField(min_value=0, max_value=1_000_000, required=False)


class FreezeFields(StrictSerializer):
    """No deployments, for a reason; for ever or until a time."""

    reason = serializers.CharField(max_length=500)
    until = serializers.DateTimeField(required=False, allow_null=True)


class AppFields(StrictSerializer):
    """Every writable field of an app, all optional: the body of PATCH."""

    name = serializers.CharField(max_length=63, required=False)
    org = serializers.CharField(max_length=63, required=False)
    description = serializers.CharField(max_length=2000, allow_blank=True, required=False)
    instances = serializers.IntegerField(min_value=0, max_value=10_000, required=False)
    processes = ProcessesField(required=False)
    memory_mb = serializers.IntegerField(min_value=4, max_value=1_048_576, required=False)
    cpu = serializers.FloatField(min_value=0.01, max_value=1024, required=False)
    cpu_limit = serializers.FloatField(min_value=0.01, max_value=1024, required=False, allow_null=True)
    singleton = serializers.BooleanField(required=False)
    env = EnvField(required=False)
    health_check = HealthCheckFields(required=False)
    strategy = StrategyFields(required=False)
    restart_policy = serializers.ChoiceField(choices=["always", "on_failure", "never"], required=False)
    stop_timeout_s = serializers.FloatField(min_value=0, max_value=3600, required=False)
    runtime = serializers.ChoiceField(choices=list(runtimes.ALL), required=False)
    placement = PlacementFields(required=False)
    traffic = TrafficFields(required=False)
    domains = serializers.ListField(child=serializers.CharField(max_length=253), required=False, max_length=50)
    labels = serializers.DictField(child=serializers.CharField(max_length=253), required=False)
    maintenance = serializers.BooleanField(required=False)
    freeze = FreezeFields(required=False, allow_null=True)

    def validate_name(self, value: str) -> str:
        return check_name(value)

    def validate_runtime(self, value: str) -> str:
        if (why := runtimes.missing(value)) is not None:
            raise refuse("runtime_not_available", why)
        return value

    def validate_domains(self, value: list[str]) -> list[str]:
        for name in value:
            if not _HOST.fullmatch(name):
                raise refuse("invalid_domain", f"{name} is not a host name in lower case.")
        return list(dict.fromkeys(value))

    def validate_labels(self, value: dict[str, str]) -> dict[str, str]:
        for key in value:
            if not _LABEL.fullmatch(key):
                raise refuse("invalid_label", f"{key} is not a label.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("singleton"):
            if attrs.get("runtime") == runtimes.SWARM:
                raise refuse("swarm_has_no_singletons", "A swarm may run a singleton twice while it moves.", "runtime")
            if attrs.get("instances", 0) > 1:
                raise refuse("singleton", "A singleton app has at most one instance.", "instances")
            if any((wanted or {}).get("instances", 0) > 1 for wanted in attrs.get("processes", {}).values()):
                raise refuse("singleton", "A singleton app has at most one instance of each type.", "processes")
        return attrs


class CreateAppFields(AppFields):
    """The body of POST /app/create."""

    name = serializers.CharField(max_length=63)
    freeze = None  # type: ignore[assignment]  # DRF's way to leave one out: what does not run yet is not frozen


class ScaleFields(StrictSerializer):
    """`instances` are those of web; `processes` names any type: `{"web": 3, "worker": 2}`."""

    instances = serializers.IntegerField(min_value=0, max_value=10_000, required=False)
    processes = serializers.DictField(
        child=serializers.IntegerField(min_value=0, max_value=10_000), required=False, allow_empty=False
    )

    def validate_processes(self, value: dict[str, int]) -> dict[str, int]:
        for name in value:
            if not processes.NAME.fullmatch(name) or name == processes.RELEASE:
                raise refuse("invalid_name", f"{name} is no process type that instances run.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise refuse("required", 'A count is wanted: {"instances": 2}, or {"processes": {"worker": 2}}.')
        if "instances" in attrs and attrs["instances"] != attrs.get("processes", {}).get("web", attrs["instances"]):
            raise refuse("given_twice", "instances are those of web, which processes say differently.", "instances")
        return attrs


class ConfigFields(StrictSerializer):
    env = EnvField()
