"""Sends telemetry models to their own database or connection, everything else to the default one."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from omni.kernel.tables import TELEMETRY, TELEMETRY_MODELS
from omni.settings_databases import shares_schema


class TelemetryRouter:
    def db_for_read(self, model: Any, **_hints: Any) -> str:
        return TELEMETRY if model._meta.label_lower in TELEMETRY_MODELS else "default"

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **_hints: Any) -> bool | None:
        """Telemetry tables are made in the telemetry database, or in the shared schema by the default connection."""
        if shares_schema(settings.CONFIG):
            return db == "default"
        is_telemetry = model_name is not None and f"{app_label}.{model_name.lower()}" in TELEMETRY_MODELS
        return is_telemetry == (db == TELEMETRY)
