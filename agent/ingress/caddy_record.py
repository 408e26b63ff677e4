"""The record of the Caddy that runs: what a successor of ours must know to adopt it, or to end it.

Owns `caddy.json` as it is read; `caddy_process` writes it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from agent.ingress import caddy_admin


@dataclass(frozen=True, slots=True)
class Running:
    """The record of a Caddy that we or a predecessor started. pid and start time together name one process.

    `listeners` are the descriptors that it has of both sides of each address (`listeners.Listeners`), `side` is the one
    that it listens on. A Caddy without any was started by an older version of ours and binds its addresses itself.
    """

    pid: int
    started: float
    binary: str
    build: str
    config: str
    socket: str
    listeners: dict[str, list[int]] = field(default_factory=dict)
    side: int = 0


def alive(record: Running) -> bool:
    try:
        process = psutil.Process(record.pid)
        same: bool = abs(process.create_time() - record.started) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def read_record(state_dir: Path) -> Running | None:
    try:
        return Running(**json.loads((state_dir / "caddy.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def send(record: Running, number: int) -> None:
    if alive(record):
        with contextlib.suppress(psutil.Error):
            psutil.Process(record.pid).send_signal(number)


async def as_it_is(record: Running) -> Running:
    """With the side that it listens on, should a predecessor have died between a change and its record."""
    found = await caddy_admin.listening(record.socket)
    for side in (0, 1):
        wanted = {f"fd/{numbers[side]}" for numbers in record.listeners.values()}
        if wanted and set(found) == wanted:
            return replace(record, side=side)
    return record
