"""`/schema`, `/docs`, `/docs/problems`, `/redoc` from local assets, open without a token; `/` leads to the console."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularRedocView, SpectacularSwaggerSplitView

from omni.kernel import problem_codes
from omni.rest import problem


class Schema(SpectacularJSONAPIView):
    """The OpenAPI document as JSON."""

    permission_classes = ()
    authentication_classes = ()


class Docs(SpectacularSwaggerSplitView):
    """Swagger UI; its script is a file of its own, so that a strict content policy can hold."""

    permission_classes = ()
    authentication_classes = ()
    url_name = "schema"
    url_self = "docs"


class Redoc(SpectacularRedocView):
    template_name = "documents/redoc.html"
    permission_classes = ()
    authentication_classes = ()
    url_name = "schema"


def problems(request: HttpRequest) -> HttpResponse:
    """Where the `type` of every problem leads: a page of our own, since Swagger UI's knows no anchors."""
    return render(request, "documents/problems.html", {"problems": problem_codes.CODES})


def root(_request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/admin/")


def nothing(request: HttpRequest) -> HttpResponse:
    """A page of Django's admin that this platform does not have."""
    return problem.not_found(request)
