"""Backup and restore of the whole platform: rows, artifacts, identity, and on request the keys.

One archive is one zip file: `manifest.json`, `rows/<model>.jsonl`, `artifacts/<sha256>`, `keys.sealed`. `create` writes
it from one snapshot while the platform runs, `verify` reads it through, `restore` puts it into an empty database.
Knows how to read and write everything and decides nothing about apps.
"""

from __future__ import annotations

from omni.operations import Refused

__all__ = ["Refused"]
