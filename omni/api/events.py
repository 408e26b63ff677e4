"""`/events`: every change of the platform, numbered.

Owns reading them; nobody but the gate writes them. An org's member sees its org's events, an operator all.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
from django.db.models import Min
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts import access
from apps.access import app as find_app
from omni.kernel.clock import rfc3339
from omni.kernel.errors import Gone
from omni.kernel.models import ORDINALS, Event
from omni.rest.paging import STREAM, answer, flag_parameter, int_parameter, limit_of, page, refused
from omni.rest.permissions import actor_of

_POSITION = re.compile(r"(\d{1,15})(?:\.(\d{1,4}))?")


def _position(key: int) -> str:
    return f"{key // ORDINALS}.{key % ORDINALS}"


def show(event: Event) -> dict[str, Any]:
    return {
        "id": event.position,
        "index": event.write_index,
        "at": rfc3339(event.at),
        "kind": event.kind,
        "object": {"type": event.object_type, "id": event.object_id},
        "org_id": event.org_id,
        "app_id": event.app_id,
        "actor": event.actor,
        "cause": event.cause,
        "request_id": event.request_id,
        "member": event.member,
        "epoch": event.epoch,
        "claim": event.claim,
        "change": event.change,
    }


class EventViewSet(ViewSet):
    scopes = {"list": "events:read"}

    @extend_schema(
        operation_id="events_list",
        description="Newest first; with `since` or a stream position as `cursor`, oldest first from there on.",
        parameters=[OpenApiParameter("since", int), OpenApiParameter("app", str), OpenApiParameter("kind", str)],
        responses={200: dict},
    )
    def list(self, request: Request) -> Response:
        actor = actor_of(request)
        rows = Event.objects.all()
        if not actor.platform:
            rows = rows.filter(org_id__in=access.orgs(actor).values("id"))
        if ref := request.query_params.get("app"):
            rows = rows.filter(app_id=find_app(actor, ref).pk)
        if kind := request.query_params.get("kind"):
            rows = rows.filter(kind=kind)
        after = self._after(request)
        if after is None:
            return page(request, rows, lambda found: [show(event) for event in found], key="key")
        limit = limit_of(request)
        found = list(rows.filter(key__gt=after).order_by("key")[: limit + 1])
        items = [show(event) for event in found[:limit]]
        shown = answer(
            request,
            items,
            next_cursor=items[-1]["id"] if len(found) > limit else None,
            previous_cursor=None,
            without=("since",),
        )
        if flag_parameter(request, "follow", False):
            self._mark(request, shown, items[-1]["id"] if items else _position(after))
        return shown

    def _mark(self, request: Request, shown: Response, seen: str) -> None:
        """What a stream needs to go on, and to share its reading with others that see the same."""
        actor = actor_of(request)
        assert isinstance(shown.data, dict)  # noqa: S101
        shown.data["seen"] = seen
        sees = None if actor.platform else sorted(access.orgs(actor).values_list("id", flat=True))
        app = request.query_params.get("app")
        chosen = [sees, find_app(actor, app).pk if app else None, request.query_params.get("kind")]
        shown.headers[STREAM] = f"events 0 {orjson.dumps(chosen).hex()}"

    def _after(self, request: Request) -> int | None:
        """The packed key after which to go on: `since=N` (everything after index N) or `cursor=N.k`."""
        if "since" in request.query_params:
            since = int_parameter(request, "since", default=0, low=0, high=10**15)
            return self._kept((since + 1) * ORDINALS - 1)
        cursor = request.query_params.get("cursor", "")
        if not cursor and request.query_params.get("follow"):
            newest = Event.objects.order_by("-key").values_list("key", flat=True).first()
            return newest or 0
        if "." not in cursor and not cursor.isdigit():
            return None
        position = _POSITION.fullmatch(cursor)
        if position is None:
            raise refused("cursor", "Take it from an event's id.")
        ordinal = int(position[2]) if position[2] is not None else ORDINALS - 1
        return self._kept(int(position[1]) * ORDINALS + ordinal)

    def _kept(self, key: int) -> int:
        """Raises Gone when retention has removed what follows `key`."""
        oldest = Event.objects.aggregate(oldest=Min("key"))["oldest"]
        if oldest is not None and oldest // ORDINALS > key // ORDINALS + 1 and key // ORDINALS > 0:
            raise Gone(
                f"The oldest event kept is {oldest // ORDINALS}.", next=f"GET /events?since={oldest // ORDINALS}"
            )
        return key
