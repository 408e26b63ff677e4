"""The floor's views: an empty one, one row read, one INSERT and commit."""

from __future__ import annotations

import json

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


def empty(_request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


def one_row(_request: HttpRequest) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, name FROM bench_row WHERE id = 1")
        row = cursor.fetchone()
    return JsonResponse({"row": row})


@csrf_exempt
def insert(request: HttpRequest) -> HttpResponse:
    """The barest create: read the body, INSERT, COMMIT, answer."""
    name = json.loads(request.body)["name"]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO bench_row (name) VALUES (%s)", [name])
        key = cursor.lastrowid
    return JsonResponse({"id": key, "name": name}, status=201)


urlpatterns = [path("empty", empty), path("one", one_row), path("insert", insert)]
