"""Write one archive of the whole platform while it runs, or check one: `omni.backup` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from omni.backup import Refused, key_files
from omni.backup.create import Options, create
from omni.backup.verify import report, summary
from omni.kernel import keys

_WITHOUT_KEYS = """The keys are NOT in this backup. Keep them aside, apart from it: without master.key no secret of any
app can be read again, and without cluster.secret the restored platform is another cluster."""


class Command(BaseCommand):
    help = "write a consistent backup of everything to PATH while the platform runs; --verify checks an existing one"
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", type=Path)
        parser.add_argument("--verify", action="store_true", help="read the archive at PATH through; change nothing")
        parser.add_argument("--without-telemetry", action="store_true", help="leave out log lines, samples, build logs")
        parser.add_argument(
            "--passphrase-file", type=Path, help="put the keys in, sealed with the passphrase in this file (mode 0600)"
        )
        parser.add_argument("--overwrite", action="store_true", help="replace an archive that is at PATH")
        parser.add_argument(
            "--without-damaged", action="store_true", help="leave out artifacts that cannot be read, and say which"
        )

    def handle(self, *_args: Any, path: Path, verify: bool, **options: Any) -> None:
        try:
            file = options["passphrase_file"]
            passphrase = key_files.read_passphrase(file) if file else ""
            if verify:
                report(path, keys.cluster_secret(settings.CONFIG), passphrase, self.stdout.write)
            else:
                self._create(path, passphrase, options)
        except Refused as refused:
            raise CommandError(str(refused)) from refused
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror or error}") from error

    def _create(self, path: Path, passphrase: str, options: dict[str, Any]) -> None:
        found = create(
            Options(
                path=path,
                telemetry=not options["without_telemetry"],
                passphrase=passphrase,
                overwrite=options["overwrite"],
                without_damaged=options["without_damaged"],
                say=self.stdout.write if options["verbosity"] > 1 else lambda _line: None,
            )
        )
        self.stdout.write(f"{path}: {summary(found)}")
        if not found.keys_in_archive:
            self.stdout.write(_WITHOUT_KEYS)
            for name in found.keys:
                self.stdout.write(f"  {settings.CONFIG.state / name}")
