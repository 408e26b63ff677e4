"""Dockerfile: for apps whose runtime is docker, which this platform does not run yet; says so with a clear code."""

from __future__ import annotations

from releases.build_errors import BuildFailed
from releases.builders.base import Plan, Source

NAME = "Dockerfile"
LOOKS_FOR = f"{NAME} (only for apps whose runtime is docker)"


def plan(source: Source) -> Plan | None:
    """Asked first for runtime docker, last for any other."""
    if source.runtime == "docker" and source.has(NAME):
        raise BuildFailed("dockerfile_not_supported", f"A {NAME} is not built yet; without one the upload is detected.")
    if source.has(NAME):
        raise BuildFailed(
            "dockerfile_needs_docker",
            f"A {NAME} is built only for apps with runtime docker, and nothing else was found to build.",
        )
    return None
