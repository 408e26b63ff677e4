"""Every error as application/problem+json (RFC 9457).

Owns the translation from exceptions (ours, DRF's, Django's, the database's) to problems; also the handlers for
routing misses and 500s. Knows no domain.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import exceptions
from rest_framework.response import Response

from omni.kernel import errors
from omni.kernel.context import request_id
from omni.kernel.errors import FieldError, OmniError
from omni.kernel.problem_codes import type_url
from omni.rest.rendering import dumps

MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger("omni.problem")


def body(error: OmniError) -> dict[str, Any]:
    """The problem document of an error."""
    problem: dict[str, Any] = {
        "type": type_url(error.code),
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id.get(),
    }
    if error.errors:
        problem["errors"] = [{"pointer": e.pointer, "code": e.code, "detail": e.detail} for e in error.errors]
    if error.next:
        problem["next"] = error.next
    return problem


def headers(error: OmniError) -> dict[str, str]:
    found = {"Omni-Outcome": error.outcome, "Cache-Control": "no-store"}
    if error.retry_after_s is not None:
        found["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        found["WWW-Authenticate"] = 'Bearer realm="omni"'
    return found


def translate(exc: BaseException) -> OmniError:
    """The OmniError that stands for any exception; an unknown one is logged and becomes an opaque 500."""
    if isinstance(exc, OmniError):
        return exc
    if isinstance(exc, exceptions.APIException):
        return _from_drf(exc)
    if isinstance(exc, Http404):
        return errors.NotFound("There is no such object.")
    if isinstance(exc, PermissionDenied):
        return errors.Forbidden()
    if isinstance(exc, RequestDataTooBig):
        return errors.TooLarge("The body is larger than this endpoint takes.")
    if isinstance(exc, SuspiciousOperation):
        return errors.Malformed()
    if isinstance(exc, IntegrityError):
        return errors.Conflict("The change collides with one that was made at the same time.", code="conflict")
    if isinstance(exc, (OperationalError, InterfaceError)):
        _log.warning("the database did not answer", exc_info=exc)
        return errors.DatabaseUnavailable()
    _log.error("unhandled exception", exc_info=exc)
    return OmniError("Something went wrong on our side; the request id finds it in the node's log.")


def _from_drf(exc: exceptions.APIException) -> OmniError:
    if isinstance(exc, exceptions.ValidationError):
        return errors.InvalidInput("Some fields are not valid.", errors=field_errors(exc.detail))
    kinds: list[tuple[type[exceptions.APIException], type[OmniError]]] = [
        (exceptions.ParseError, errors.Malformed),
        (exceptions.NotAuthenticated, errors.Unauthenticated),
        (exceptions.AuthenticationFailed, errors.Unauthenticated),
        (exceptions.PermissionDenied, errors.Forbidden),
        (exceptions.NotFound, errors.NotFound),
        (exceptions.UnsupportedMediaType, errors.UnsupportedMedia),
    ]
    for drf_kind, ours in kinds:
        if isinstance(exc, drf_kind):
            return ours(str(exc.detail))
    if isinstance(exc, exceptions.Throttled):
        wait = int(getattr(exc, "wait", None) or 1) + 1
        return errors.TooManyRequests(f"Too many requests; the next is taken in {wait} s.", retry_after_s=wait)
    if isinstance(exc, exceptions.MethodNotAllowed):
        problem = OmniError(str(exc.detail), code="method_not_allowed")
        problem.status, problem.title = 405, "This path does not take that method"
        return problem
    problem = OmniError(str(exc.detail), code=str(exc.default_code))
    problem.status, problem.title = exc.status_code, "The request was refused"
    return problem


def field_errors(detail: Any, pointer: str = "") -> list[FieldError]:
    """DRF's nested error detail as a flat list with JSON pointers."""
    if isinstance(detail, dict):
        found: list[FieldError] = []
        for key, value in detail.items():
            inner = pointer if key == "non_field_errors" else f"{pointer}/{key}"
            found += field_errors(value, inner)
        return found
    if isinstance(detail, list):
        found = []
        for position, item in enumerate(detail):
            nested = isinstance(item, (dict, list))
            found += field_errors(item, f"{pointer}/{position}" if nested else pointer)
        return found
    return [FieldError(pointer or "/", str(getattr(detail, "code", "invalid")), str(detail))]


def handle(exc: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler."""
    error = translate(exc)
    response = Response(body(error), status=error.status, headers=headers(error), content_type=MEDIA_TYPE)
    if isinstance(exc, exceptions.MethodNotAllowed):
        view = context.get("view")
        response["Allow"] = ", ".join(getattr(view, "allowed_methods", []))
    return response


def response(error: OmniError) -> HttpResponse:
    """A problem outside DRF."""
    return HttpResponse(dumps(body(error)), status=error.status, content_type=MEDIA_TYPE, headers=headers(error))


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return response(errors.NotFound(f"There is no {request.path}.", next="GET /docs"))


def server_error(request: HttpRequest) -> HttpResponse:
    return response(OmniError("Something went wrong on our side; the request id finds it in the node's log."))


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return response(errors.Malformed())


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return response(errors.Forbidden())


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return response(errors.Forbidden("The form's security token is missing or old; load the page again.", code="csrf"))
