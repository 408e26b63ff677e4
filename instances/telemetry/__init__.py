"""Logs and figures of instances: append-only, ungated, in the telemetry database."""
