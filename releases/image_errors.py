"""What an engine's and a registry's sentences mean, as codes of a build. Pure."""

from __future__ import annotations

import re

_LONGEST = 600
RULES: tuple[tuple[str, str, str], ...] = (
    (r"no space left on device", "engine_disk_full", "The disk of the container engine is full."),
    (
        r"unauthorized|authentication required|no basic auth|403 forbidden|access to the resource is denied",
        "registry_refused",
        "The registry refuses. Store its user name and password: POST /orgs/<org>/registries.",
    ),
    (
        r"pull access denied|manifest unknown|not found|does not exist|name unknown|no such image",
        "image_not_found",
        "There is no such image, or it is private (POST /orgs/<org>/registries stores credentials).",
    ),
    (
        r"no such host|connection refused|i/o timeout|dial tcp|x509|tls:|deadline exceeded|no route to host|"
        r"request canceled|server gave http response",
        "registry_unreachable",
        "The registry cannot be reached from the engine.",
    ),
    (r"requires buildkit|--mount option", "buildkit_needed", "This engine builds without BuildKit."),
    (
        r"parse error|unknown instruction|no build stage|syntax error|cannot be empty",
        "bad_dockerfile",
        "It is no Dockerfile.",
    ),
    (r"non-zero code: 137", "out_of_memory", "A command was killed: it needed more memory than a build may have."),
    (r"non-zero code", "command_failed", "A command of the Dockerfile failed."),
)
OTHERWISE = {
    "reference": ("image_pull_failed", "The image could not be had."),
    "archive": ("bad_image_archive", "The engine refuses the image archive."),
    "dockerfile": ("build_failed", "The engine could not build it."),
}


class Failed(Exception):
    """`code` is stable and snake_case, `detail` for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def failed_of(text: str, kind: str) -> Failed:
    """The engine's own words stay in the detail."""
    low = text.lower()
    code, says = OTHERWISE.get(kind, OTHERWISE["dockerfile"])
    for pattern, found, meaning in RULES:
        if re.search(pattern, low):
            code, says = found, meaning
            break
    said = " ".join(text.split())[-_LONGEST:]
    return Failed(code, f"{says} It said: {said}")
