"""`migrate`, as maintenance: under the gate's permit, refused while a leader lives (DECISIONS 4).

On the default database only; `migrate_all` runs it for telemetry as well.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate

from consensus import gate
from consensus.lease import ConsensusUnavailable, Held
from consensus.page import PageLease


class Command(migrate.Command):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--while-leading",
            action="store_true",
            help="run although a leader lives on this host; only for migrations that are marked safe for it",
        )

    def handle(self, *args: Any, while_leading: bool = False, **options: Any) -> Any:
        if not while_leading and settings.CONFIG.role == "command" and _leader_lives():
            raise CommandError(
                "A leader is running, and members of this host know it. Stop the platform first (Ctrl-C in start.sh)."
            )
        with gate.maintenance("migrate"):
            return super().handle(*args, **options)


def _leader_lives() -> bool:
    """Whether any member of this host leads or knows who does."""
    config = settings.CONFIG
    for member in config.members:
        try:
            answer = PageLease(config.node_dir(member) / "lease").current()
        except ConsensusUnavailable:
            continue
        if isinstance(answer, Held) or answer.leader is not None:
            return True
    return False
