"""`/services`, `/alerts`, `/silences`: internal services under health management. The platform's, so by scope alone.

Validates, calls one verb, answers. Reads that must answer without the database are in `omni.api.services`.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.access import recheck
from consensus.gate import Transaction
from instances.telemetry import statements as sql
from omni.kernel import clock
from omni.kernel.errors import Conflict, FieldError, InvalidInput, NotFound
from omni.kernel.seal import unseal
from omni.kernel.service_keys import ServiceKeys
from omni.rest.fields import StrictSerializer
from omni.rest.paging import page, refused
from omni.rest.writes import Reply, check_revision, etag, expected_revision, no_body, perform
from services import definitions, outcomes, representation, services
from services.decision import STATES
from services.models import Alert, CheckSpan, RemedyRun, Service, Silence
from services.states import AlertStatus

_SWITCHES = ("maintenance", "maintenance_until")
_READ, _WRITE = "platform:read", "platform:write"
_NOW_US = 180_000_000  # a vantage point that said nothing for longer says nothing about now
_SPAN = ("node", "outcome", "from_us", "at_us", "checks", "latency_ms", "latency_ms_max", "detail")
_LATEST = (
    "SELECT s.node, s.outcome, s.from_us, s.at_us, s.checks, s.latency_ms, s.latency_ms_max, s.detail "
    "FROM services_checkspan s JOIN (SELECT node, MAX(from_us) AS newest FROM services_checkspan "
    "WHERE service_id = %s AND from_us > %s GROUP BY node) n ON n.node = s.node AND n.newest = s.from_us "
    "WHERE s.service_id = %s ORDER BY s.node"
)


class Maintenance(StrictSerializer):
    maintenance = serializers.BooleanField(required=False)
    maintenance_until = serializers.DateTimeField(required=False, allow_null=True)


class BeatFields(StrictSerializer):
    ok = serializers.BooleanField(required=False, default=True)
    detail = serializers.CharField(required=False, default="", max_length=300, allow_blank=True)


class AckFields(StrictSerializer):
    note = serializers.CharField(required=False, default="", max_length=500, allow_blank=True)


class SilenceFields(StrictSerializer):
    pattern = serializers.CharField(max_length=120, help_text="of service names; `*` stands for anything")
    reason = serializers.CharField(max_length=300)
    ends_at = serializers.DateTimeField()
    starts_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


class AlertSilenceFields(StrictSerializer):
    reason = serializers.CharField(max_length=300)
    ends_at = serializers.DateTimeField()


class ServiceViewSet(ViewSet):
    scopes = {
        "list": _READ,
        "create": _WRITE,
        "retrieve": _READ,
        "partial_update": _WRITE,
        "destroy": _WRITE,
        "checks": _READ,
        "remedies": _READ,
        "heartbeat": "services:beat",
    }

    @extend_schema(
        operation_id="services_list",
        parameters=[OpenApiParameter("state", str), OpenApiParameter("q", str), OpenApiParameter("source", str)],
        responses={200: dict},
    )
    def list(self, request: Request) -> Response:
        rows = Service.objects.all()
        if state := request.query_params.get("state"):
            if state not in STATES:
                raise refused("state", f"One of {', '.join(STATES)} is wanted.")
            rows = rows.filter(state=state)
        if text := request.query_params.get("q"):
            rows = rows.filter(name__contains=text)
        if source := request.query_params.get("source"):
            rows = rows.filter(source=source)
        return page(request, rows, representation.services)

    @extend_schema(operation_id="services_create", request=ServiceKeys, responses={201: dict})
    def create(self, request: Request) -> Response:
        given = definitions.read(request.data)

        def verb(tx: Transaction) -> Reply:
            recheck(tx.actor, _WRITE)
            service = services.create_service(tx, given)
            return Reply(representation.service(service), 201, service.revision, f"/services/{service.pk}")

        return perform(request, verb)

    @extend_schema(operation_id="services_retrieve", responses={200: dict})
    def retrieve(self, request: Request, service: str) -> Response:
        found = services.find(service)
        (shown,) = representation.services([found])
        return Response({**shown, "vantage": vantage_points(found)}, headers={"ETag": etag(found.revision)})

    @extend_schema(operation_id="services_update", request=ServiceKeys, responses={200: dict})
    def partial_update(self, request: Request, service: str) -> Response:
        data, expected = request.data, expected_revision(request)
        if not isinstance(data, dict):
            raise InvalidInput(errors=[FieldError("/", "invalid", "An object is wanted.")])
        switched = Maintenance.read({name: data[name] for name in _SWITCHES if name in data})
        definition = {name: value for name, value in data.items() if name not in _SWITCHES}

        def verb(tx: Transaction) -> Reply:
            recheck(tx.actor, _WRITE)
            found = services.find(service, lock=True)
            check_revision(found.revision, expected)
            if definition:
                secret = str(unseal(found.remedy_secret)) if found.remedy_secret else ""
                found = services.update_service(tx, found, definitions.patched(found, definition, secret))
            if switched:
                on = switched.get("maintenance", found.maintenance or switched.get("maintenance_until") is not None)
                found = services.set_maintenance(tx, found, on, switched.get("maintenance_until"))
            return Reply(representation.services([found])[0], 200, found.revision)

        return perform(request, verb)

    @extend_schema(operation_id="services_destroy", request=None, responses={204: None})
    def destroy(self, request: Request, service: str) -> Response:
        no_body(request)
        expected = expected_revision(request)

        def verb(tx: Transaction) -> Reply:
            recheck(tx.actor, _WRITE)
            found = services.find(service, lock=True)
            check_revision(found.revision, expected)
            services.delete_service(tx, found)
            return Reply(None, 204)

        return perform(request, verb)

    @extend_schema(
        operation_id="services_checks",
        description="What the checks came to, newest first: rows of checks at one node that came out the same.",
        parameters=[OpenApiParameter("node", str), OpenApiParameter("outcome", str)],
        responses={200: dict},
    )
    def checks(self, request: Request, service: str) -> Response:
        found = services.find(service)
        rows = CheckSpan.objects.filter(service_id=found.pk)
        for name in ("node", "outcome"):
            if value := request.query_params.get(name):
                rows = rows.filter(**{name: value})
        return page(request, rows.values(*_SPAN), lambda spans: [_span(one) for one in spans], key="from_us")

    @extend_schema(operation_id="services_remedies", responses={200: dict})
    def remedies(self, request: Request, service: str) -> Response:
        rows = RemedyRun.objects.filter(service=services.find(service))
        return page(request, rows, lambda runs: [representation.remedy_run(run) for run in runs])

    @extend_schema(operation_id="services_heartbeat", request=BeatFields, responses={200: dict})
    def heartbeat(self, request: Request, service: str) -> Response:
        """What the service itself sends; `ok: false` says that it fails. Telemetry: touches no gate."""
        given, found, now = BeatFields.read(request.data or {}), services.find(service), clock.now()
        if found.check_spec["type"] != "heartbeat":
            raise Conflict(f"{found.name} is checked by {found.check_spec['type']}.", code="no_heartbeat_wanted")
        row = (found.pk, clock.to_us(now), given["ok"], given["detail"])
        sql.insert("services_beat", ("service_id", "at_us", "ok", "detail"), [row], again="replace")
        return Response({"id": found.pk, "at": clock.rfc3339(now)})


class AlertViewSet(ViewSet):
    scopes = {"list": _READ, "retrieve": _READ, "ack": _WRITE, "silence": _WRITE}

    @extend_schema(
        operation_id="alerts_list",
        description="`status`: open, acknowledged, resolved, or active for what is not resolved.",
        parameters=[OpenApiParameter("status", str), OpenApiParameter("service", str)],
        responses={200: dict},
    )
    def list(self, request: Request) -> Response:
        rows = Alert.objects.all()
        if status := request.query_params.get("status"):
            known = [*AlertStatus.values, "active"]
            if status not in known:
                raise refused("status", f"One of {', '.join(known)} is wanted.")
            rows = rows.exclude(status=AlertStatus.RESOLVED) if status == "active" else rows.filter(status=status)
        if service := request.query_params.get("service"):
            rows = rows.filter(service_name=service)
        quiet = outcomes.active_silences(clock.now())
        return page(request, rows, lambda found: [representation.alert(row, quiet) for row in found])

    @extend_schema(operation_id="alerts_retrieve", responses={200: dict})
    def retrieve(self, request: Request, alert_id: int) -> Response:
        found = _alert(alert_id)
        return Response(_shown(found), headers={"ETag": etag(found.revision)})

    @extend_schema(operation_id="alerts_ack", request=AckFields, responses={200: dict})
    def ack(self, request: Request, alert_id: int) -> Response:
        note, expected = AckFields.read(request.data or {})["note"], expected_revision(request)

        def verb(tx: Transaction) -> Reply:
            recheck(tx.actor, _WRITE)
            found = _alert(alert_id)
            check_revision(found.revision, expected)
            found = services.acknowledge(tx, found, note)
            return Reply(_shown(found), 200, found.revision)

        return perform(request, verb)

    @extend_schema(operation_id="alerts_silence", request=AlertSilenceFields, responses={201: dict})
    def silence(self, request: Request, alert_id: int) -> Response:
        given = AlertSilenceFields.read(request.data or {})

        def verb(tx: Transaction) -> Reply:
            recheck(tx.actor, _WRITE)
            pattern = _alert(alert_id).service_name
            row = services.silence(tx, pattern=pattern, starts_at=None, **given)
            return Reply(representation.silence(row), 201, row.revision, f"/silences/{row.pk}")

        return perform(request, verb)


class SilenceViewSet(ViewSet):
    scopes = {"list": _READ, "create": _WRITE, "destroy": _WRITE}

    @extend_schema(operation_id="silences_list", responses={200: dict})
    def list(self, request: Request) -> Response:
        return page(request, Silence.objects.all(), lambda rows: [representation.silence(row) for row in rows])

    @extend_schema(operation_id="silences_create", request=SilenceFields, responses={201: dict})
    def create(self, request: Request) -> Response:
        given = SilenceFields.read(request.data or {})

        def verb(tx: Transaction) -> Reply:
            recheck(tx.actor, _WRITE)
            row = services.silence(tx, **given)
            return Reply(representation.silence(row), 201, row.revision, f"/silences/{row.pk}")

        return perform(request, verb)

    @extend_schema(operation_id="silences_destroy", request=None, responses={200: dict})
    def destroy(self, request: Request, silence_id: int) -> Response:
        """Ends it at once; it stays listed."""
        no_body(request)

        def verb(tx: Transaction) -> Reply:
            recheck(tx.actor, _WRITE)
            row = Silence.objects.filter(pk=silence_id).first()
            if row is None:
                raise NotFound("There is no such silence.", next="GET /silences")
            row = services.end_silence(tx, row)
            return Reply(representation.silence(row), 200, row.revision)

        return perform(request, verb)


def _alert(alert_id: int) -> Alert:
    found = Alert.objects.filter(pk=alert_id).first()
    if found is None:
        raise NotFound("There is no such alert.", next="GET /alerts")
    return found


def _shown(found: Alert) -> dict[str, Any]:
    return representation.alert(found, outcomes.active_silences(clock.now()))


def vantage_points(service: Service) -> list[dict[str, Any]]:
    """The newest that each vantage point said."""
    oldest = clock.to_us(clock.now()) - max(_NOW_US, int(3e6 * service.interval_s))
    rows = sql.select(_LATEST, [service.pk, oldest, service.pk])
    return [_span(dict(zip(_SPAN, row, strict=True))) for row in rows]


def _span(row: Any) -> dict[str, Any]:
    return {
        "node": row["node"],
        "outcome": row["outcome"],
        "from": clock.rfc3339(clock.from_us(row["from_us"])),
        "until": clock.rfc3339(clock.from_us(row["at_us"])),
        "checks": row["checks"],
        "latency_ms": row["latency_ms"],
        "latency_ms_max": row["latency_ms_max"],
        "detail": row["detail"],
    }
