"""Dockerfile: for apps whose runtime is docker; the engine builds it. A Procfile beside it names other processes."""

from __future__ import annotations

from releases.build_errors import BuildFailed
from releases.builders.base import Plan, Source

NAME = "Dockerfile"
LOOKS_FOR = f"{NAME} (only for apps whose runtime is docker)"
IMAGES_OWN = ""  # the command that the image itself names


def plan(source: Source) -> Plan | None:
    """Asked first for runtime docker, last for any other."""
    if not source.has(NAME):
        return None
    if source.runtime != "docker":
        raise BuildFailed(
            "dockerfile_needs_docker",
            f"A {NAME} is built only for apps with runtime docker, and nothing else was found to build.",
        )
    return Plan("dockerfile", process_types={"web": IMAGES_OWN}, image=True)
