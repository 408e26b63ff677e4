"""Bring both databases, the control plane's and telemetry's, to the current schema. Idempotent."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

from omni.settings_databases import shares_schema


class Command(BaseCommand):
    help = "migrate the control plane's database and telemetry's"

    def handle(self, *_args: Any, verbosity: int = 1, **_options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=verbosity)
        if not shares_schema(settings.CONFIG):
            call_command("migrate", database="telemetry", interactive=False, verbosity=verbosity)
