"""Put a backup back into an empty database: `omni.backup.restore` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from omni.backup import Refused, key_files
from omni.backup.restore import Options, Restored, restore


class Command(BaseCommand):
    help = "put the backup at PATH into an empty database and state directory; the platform must not run"
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", type=Path)
        parser.add_argument(
            "--replace", action="store_true", help="delete everything that the database holds, and put the backup there"
        )
        parser.add_argument(
            "--passphrase-file", type=Path, help="open the keys in the archive with the passphrase in this file"
        )
        parser.add_argument(
            "--from",
            dest="from_cluster",
            default="",
            metavar="CLUSTER",
            help="the backup is of this other cluster; its data becomes ours",
        )

    def handle(self, *_args: Any, path: Path, **options: Any) -> None:
        try:
            file = options["passphrase_file"]
            done = restore(
                Options(
                    path=path,
                    replace=options["replace"],
                    from_cluster=options["from_cluster"],
                    passphrase=key_files.read_passphrase(file) if file else "",
                    say=self.stdout.write,
                )
            )
        except Refused as refused:
            raise CommandError(str(refused)) from refused
        except Error as error:
            raise CommandError(f"the database failed: {error}. Repeat the restore with --replace") from error
        self._tell(done)

    def _tell(self, done: Restored) -> None:
        self.stdout.write(
            f"Restored: cluster {done.cluster_id}, epoch {done.epoch}, write index {done.write_index}. "
            "Every row and every artifact reads as the backup does."
        )
        if done.keys_written:
            self.stdout.write(f"Keys written: {', '.join(done.keys_written)}")
        for name, count in done.lost.items():
            self.stdout.write(f"The node {name} is not in this configuration: {count} instances will be replaced.")
        self.stdout.write(
            "On every other host of the cluster remove node-*/raft from its state directory. Then start the platform: "
            "what still runs on nodes of the same name is taken over, everything else is started."
        )
