"""Say how the cluster stands, also with the database or every member down: `omni.operations.status` does the work."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from omni.operations import status


class Command(BaseCommand):
    help = "members, leader, epoch, quorum and the health of each part; exit code 1 when no write would be taken"
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *_args: Any, **options: Any) -> None:
        found = status.look(settings.CONFIG)
        if options["json"]:
            self.stdout.write(json.dumps(found.to_json(), indent=1, default=str))
        else:
            self.stdout.write("\n".join(status.lines(found)))
        if not found.takes_writes:
            raise SystemExit(1)
