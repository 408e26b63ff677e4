"""Take over, on purpose, a database that belongs to another cluster: `omni.operations.adopt` does the work."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from omni.operations import Refused
from omni.operations.adopt import adopt


class Command(BaseCommand):
    help = "make the database this cluster's, which belongs to the cluster --from; that one must be stopped"
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from",
            dest="theirs",
            default="",
            metavar="CLUSTER",
            help="the id of the cluster that the database belongs to, as the refusal names it",
        )
        parser.add_argument(
            "--give-up-secrets",
            action="store_true",
            help="go on although the environments of some apps were sealed with a master key that is lost",
        )

    def handle(self, *_args: Any, theirs: str, give_up_secrets: bool, **_options: Any) -> None:
        try:
            done = adopt(theirs, give_up_secrets=give_up_secrets, say=self.stdout.write)
        except Refused as refused:
            raise CommandError(str(refused)) from refused
        self.stdout.write(
            f"The database of cluster {done.theirs} belongs to cluster {done.ours} now: epoch {done.epoch}, "
            f"write index {done.write_index}."
        )
        for name, count in done.lost.items():
            self.stdout.write(f"The node {name} is not in this configuration: {count} instances will be replaced.")
        if done.sealed:
            self.stdout.write(f"Set the environment of these apps anew, nobody can read it: {', '.join(done.sealed)}")
        if done.missing:
            where = settings.CONFIG.artifacts.s3_bucket or settings.CONFIG.artifacts_path
            self.stdout.write(f"{done.missing} artifacts are not in {where}: copy the other cluster's artifacts there.")
