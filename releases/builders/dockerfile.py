"""Dockerfile: for apps whose runtime is docker or swarm; the engine builds it. A Procfile names other processes."""

from __future__ import annotations

from releases.build_errors import BuildFailed
from releases.builders.base import Plan, Source
from releases.contract import IMAGE_RUNTIMES

NAME = "Dockerfile"
LOOKS_FOR = f"{NAME} (only for apps whose runtime is docker or swarm)"
IMAGES_OWN = ""  # the command that the image itself names


def plan(source: Source) -> Plan | None:
    """Asked first for runtimes of images, last for any other."""
    if not source.has(NAME):
        return None
    if source.runtime not in IMAGE_RUNTIMES:
        raise BuildFailed(
            "dockerfile_needs_docker",
            f"A {NAME} is built only for apps with runtime docker or swarm, and nothing else was found to build.",
        )
    return Plan("dockerfile", process_types={"web": IMAGES_OWN}, image=True)
