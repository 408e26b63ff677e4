"""Places to back up from and restore to: a state directory and a database each, worked on by real commands."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from omni.testing import migrated
from omni.testing.mariadb import PrivateMariaDB

PROJECT = Path(__file__).resolve().parents[2]
PASSPHRASE = "correct horse battery staple"  # noqa: S105


@dataclass
class Place:
    """One installation. `url` empty: SQLite in its state directory."""

    folder: Path
    url: str = ""
    server: PrivateMariaDB | None = None
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def passphrase(self) -> Path:
        path = self.folder / "passphrase"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(PASSPHRASE + "\n")
        return path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        given = {name: value for name, value in os.environ.items() if not name.startswith("OMNI_")}
        own = {
            "OMNI_CONFIG": str(self.folder / "config.json"),
            "OMNI_STATE": str(self.state),
            "OMNI_ENV": "development",
        }
        if self.url:
            own["OMNI_DATABASE_URL"] = self.url
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=PROJECT, env={**given, **own, **self.variables}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def manage(self, *arguments: str | Path) -> str:
        """A command that must succeed."""
        code, output = self.run("manage.py", *map(str, arguments))
        _expect(code == 0, output)
        return output

    def refused(self, *arguments: str | Path) -> str:
        """A command that must refuse, in words."""
        code, output = self.run("manage.py", *map(str, arguments))
        _expect(code == 1 and "Traceback" not in output, output)
        return output

    def seed(self, apps: int = 5, lines: int = 200) -> None:
        if not self.url:
            migrated.lay(self.state, self.folder / "config.json", {})
        code, output = self.run("-m", "omni.backup.testbed", "seed", "--apps", str(apps), "--lines", str(lines))
        _expect(code == 0, output)

    def sql(self, statement: str) -> list[tuple[str, ...]]:
        """Rows as text, read past Django."""
        if self.server is not None:
            name = self.url.partition("localhost/")[2].partition("?")[0]
            out = self.server.execute(f"USE `{name}`; {statement}")
            return [tuple(line.split("\t")) for line in out.splitlines()]
        with contextlib.closing(sqlite3.connect(self.state / "omni.sqlite3")) as database:
            return [tuple(str(value) for value in row) for row in database.execute(statement)]

    def fence(self) -> tuple[str, int, int]:
        ((cluster_id, epoch, index),) = self.sql("SELECT cluster_id, epoch, write_index FROM consensus_fence")
        return cluster_id, int(epoch), int(index)


def _expect(good: bool, output: str) -> None:
    if not good:
        raise AssertionError(output)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[PrivateMariaDB]:
    with PrivateMariaDB() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Place]:
    """`place("one")` on SQLite, `place("two", "mariadb")`."""

    def make(name: str, engine: str = "sqlite", nodes: tuple[int, ...] = (8000,)) -> Place:
        folder = tmp_path / name
        folder.mkdir()
        config = {"port": nodes[0], "instances": [{"port": port, "address": "127.0.0.1"} for port in nodes]}
        (folder / "config.json").write_text(json.dumps(config))
        if engine == "sqlite":
            return Place(folder)
        server: PrivateMariaDB = request.getfixturevalue("mariadb")
        database = f"{name}_{os.urandom(4).hex()}"
        return Place(folder, server.create(database), server)

    return make


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A small platform's data on SQLite, and a backup of it with keys at `backup`; tests only read both."""
    folder = tmp_path_factory.mktemp("seeded")
    (folder / "config.json").write_text(json.dumps({"port": 8000}))
    made = Place(folder)
    made.seed()
    made.manage("cluster_backup", folder / "backup", "--passphrase-file", made.passphrase)
    return made


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A platform that was started and never used; tests only read it."""
    folder = tmp_path_factory.mktemp("blank")
    (folder / "config.json").write_text(json.dumps({"port": 8000}))
    made = Place(folder)
    made.seed(0, 0)
    return made


@pytest.fixture
def copied(seeded: Place, tmp_path: Path) -> Place:
    """The seeded platform again, to be changed."""
    return copy_of(seeded, tmp_path / "copied")


@pytest.fixture
def fresh(blank: Place, tmp_path: Path) -> Place:
    """The blank platform again, to be changed."""
    return copy_of(blank, tmp_path / "fresh")


def copy_of(made: Place, folder: Path) -> Place:
    shutil.copytree(made.folder, folder)
    return Place(folder)
