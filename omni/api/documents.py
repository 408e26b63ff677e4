"""`/schema`, `/docs`, `/redoc` from local assets, open without a token; `/` leads to the console."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularRedocView, SpectacularSwaggerSplitView


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


def root(_request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/admin/")
