"""What the ingress is told at its start.

Owns reading ingress.json; must not look at the environment but for the binary.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.ingress.tls import Https


class SettingsError(Exception):
    """ingress.json cannot be used; the message names file, key and what is wanted."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`address` and `port` are the public listener; everything else listens on loopback or in `state_dir`."""

    node: str
    control_plane: tuple[str, ...]
    token: str
    state_dir: Path
    address: str
    port: int = 8080
    domain: str = "localhost"
    log_level: str = "info"
    caddy_bin: str = ""
    tls: str = ""
    window_s: float = 10.0
    wait_s: float = 25.0
    https: Https | None = None


def load(path: Path) -> Settings:
    """Read and check `path`; unknown keys are ignored, so that an older ingress starts under a newer launcher."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: an object is wanted")
    missing = [key for key in ("node", "control_plane", "token", "state_dir", "address") if key not in data]
    if missing:
        raise SettingsError(f"{path}: missing {', '.join(missing)}")
    members = data["control_plane"]
    if not isinstance(members, list) or not members or not all(isinstance(url, str) for url in members):
        raise SettingsError(f"{path}: control_plane wants a list of URLs, the own member's first")
    port = data.get("port", 8080)
    if not isinstance(port, int) or not 0 < port < 65536:
        raise SettingsError(f"{path}: port wants a number from 1 to 65535, not {port!r}")
    return Settings(
        node=str(data["node"]),
        control_plane=tuple(url.rstrip("/") for url in members),
        token=str(data["token"]),
        state_dir=Path(data["state_dir"]).absolute(),
        address=str(data["address"]),
        port=port,
        domain=str(data.get("domain", "localhost")),
        log_level=str(data.get("log_level", "info")).lower(),
        caddy_bin=str(data.get("caddy_bin", "") or os.environ.get("OMNI_CADDY_BIN", "")),
        tls=str(data.get("tls", "") or ""),
        window_s=float(data.get("window_s", 10.0)),
        wait_s=float(data.get("wait_s", 25.0)),
        https=_https(path, data.get("https")),
    )


def _https(path: Path, given: Any) -> Https | None:
    """`{"port", "issuer", "acme_email", "acme_directory"}`; without it there is no secure listener."""
    if not given:
        return None
    if not isinstance(given, dict) or not isinstance(port := given.get("port"), int) or not 0 < port < 65536:
        raise SettingsError(f"{path}: https wants an object with a port from 1 to 65535")
    issuer = str(given.get("issuer", "internal"))
    if issuer not in ("internal", "acme"):
        raise SettingsError(f"{path}: https.issuer wants internal or acme, not {issuer!r}")
    return Https(port, issuer, str(given.get("acme_email", "")), str(given.get("acme_directory", "")))
