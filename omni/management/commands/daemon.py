"""Run this member's daemon: lease, and on the leader the controller, the relay and retention."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "run this member's daemon until it is told to stop"
    requires_system_checks = []

    def handle(self, *_args: Any, **_options: Any) -> None:
        from omni.daemon.main import Daemon

        Daemon().run()
