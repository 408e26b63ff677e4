"""`python -m releases.worker_start COMMAND…`: becomes the build worker, under a user of its own (DECISIONS 22).

Started as root it does what only root can (packet filter, cgroups, the host's registry settings with their
credentials), and then becomes root of a user namespace that holds the worker's user and those of builds, in a view of
the file system without the state directory. So a build that escapes, even to the worker itself, meets a user who owns
no key and sees none. Whether all this works here is tried in a child first; where it does not, the worker runs as root
and every build's log says so. Not started as root, it becomes the worker at once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import resource
import shutil
import sys
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from observing import journal
from omni.kernel import config as configuration
from releases import engine_door, worker_given, worker_sweep
from releases.registry_settings import RegistrySettings
from releases.registry_settings import read as read_registries
from releases.worker_given import Given
from sandbox import bubblewrap, cgroups, engines, identity, namespaces, network
from sandbox.namespaces import Shown
from sandbox.probe import Facts, probe

PROJECT = Path(__file__).resolve().parents[1]
OPEN_FILES = 16_384  # what a build may have; the worker could not raise its own limit
_ENVIRONMENT = ("PATH", "LANG", "TZ", "DJANGO_SETTINGS_MODULE", "MALLOC_ARENA_MAX", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PREFIXES = ("LC_", "OMNI_", "PYTHON")
_OWN = ("builds", "cache", "tmp")
_COPIES = ("config.json", "tls")  # what omni.launch lays beside them, readable by its owner only
log = logging.getLogger("omni.worker")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one worker lives on this host, and as whom."""

    directory: Path
    state: Path
    broker_folder: Path | None
    uid: int
    uid_base: int
    bwrap: str
    engine: str = ""
    door: Path = Path()

    @property
    def given(self) -> Path:
        return self.directory / "given"

    @property
    def users(self) -> tuple[int, int]:
        return identity.uid_range("build", self.uid_base)

    @property
    def groups(self) -> str:
        return worker_sweep.groups_of(self.directory)


def main(command: list[str]) -> NoReturn:
    if not command:
        sys.exit("usage: python -m releases.worker_start COMMAND...")
    journal.configure()
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        _run(command, {**os.environ, engine_door.VARIABLE: engines.find(configuration.load_or_exit().agent.docker)})
    _run(command, _become_worker(_place()))


def _become_worker(place: Place) -> dict[str, str]:
    """Everything that root has to do; afterwards we are the worker. Answers its environment."""
    prepare(place)
    registries = read_registries()
    filtered, notes = _filter(place, registries)
    facts = tried(place, registries, filtered)
    if isinstance(facts, str):
        why = f"the build worker runs as root: {facts}"
        log.warning(why)
        facts = probe(place.bwrap or None, cgroup_parent=place.groups, filtered=filtered)
        hand_over(place, Given(_noted(facts, [*notes, why]), registries))
        return {
            **os.environ,
            engine_door.VARIABLE: place.engine,
            worker_given.VARIABLE: str(place.given / "given.json"),
        }
    hand_over(place, Given(_noted(facts, notes), registries))
    door = engine_door.keep(place.door, place.uid, place.engine) if place.engine else ""
    step_down(place, registries, facts.bwrap)
    log.info("the build worker is user %s", place.uid)
    return {**own_environment(place), engine_door.VARIABLE: door}


def _place() -> Place:
    config = configuration.load_or_exit()
    directory = Path(os.environ.get("OMNI_WORKER_DIR") or config.state / "worker").absolute()
    broker = Path(config.broker.removeprefix("redis+socket://")) if "+socket://" in config.broker else None
    uid = identity.uid_for("worker", 0, config.agent.uid_base)
    engine = engines.find(config.agent.docker)
    return Place(
        directory=directory,
        state=config.state,
        broker_folder=broker.parent if broker else None,
        uid=uid,
        uid_base=config.agent.uid_base,
        bwrap=config.binaries.bwrap,
        engine=engine,
        door=engine_door.folder_for(directory) if engine and os.geteuid() == 0 else Path(),
    )


def prepare(place: Place) -> None:
    """Leftovers of a killed worker go; what the new one may write becomes its own."""
    place.directory.mkdir(parents=True, exist_ok=True)
    worker_sweep.sweep(place.directory)
    for name in _OWN:
        folder = place.directory / name
        folder.mkdir(mode=0o711, exist_ok=True)
        os.chown(folder, place.uid, place.uid, follow_symlinks=False)
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, OPEN_FILES))


def _filter(place: Place, registries: RegistrySettings) -> tuple[bool, list[str]]:
    """Keep builds from loopback and control ports; whether that worked, and why not."""
    allowed = [(port, port) for port in registries.loopback_ports]
    try:
        network.install(worker_sweep.table_of(place.directory), [network.Rule(place.users, allowed)])
    except network.Unavailable as error:
        return False, [f"network is shared with the host: {error}"]
    return True, []


def tried(place: Place, registries: RegistrySettings, filtered: bool) -> Facts | str:
    """What the worker will be able to do under its own user, tried by a child; or why it cannot be one."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _try(place, registries, filtered, writer)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    try:
        said = json.loads(text)
        facts = Facts(**said) if isinstance(said, dict) else None
    except (ValueError, TypeError):
        return "the trial of its own user ended without a word"
    if facts is None:
        return str(said)
    as_root = bubblewrap.find_bwrap(place.bwrap or None)
    if facts.isolation == "none" and as_root is not None:
        return f"under a user of its own it cannot sandbox builds ({'; '.join(facts.notes)})"
    return facts


def _try(place: Place, registries: RegistrySettings, filtered: bool, writer: int) -> NoReturn:
    """In the child: do what the worker does, and say how it went. Never returns."""
    answer: object = "the trial failed"
    try:
        step_down(place, registries, bubblewrap.find_bwrap(place.bwrap or None))
        _look_around(place)
        facts = probe(place.bwrap or None, cgroup_parent=place.groups, filtered=filtered, user=place.users[0])
        answer = {name: getattr(facts, name) for name in Facts.__slots__}
    except (namespaces.Unavailable, OSError, ValueError) as error:
        answer = f"it cannot have a user of its own: {error}"
    except BaseException:
        traceback.print_exc()
    finally:
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)


def _look_around(place: Place) -> None:
    """Raises OSError for what the worker needs and cannot read or write under its own user."""
    celery = importlib.util.find_spec("celery")
    library = celery.origin if celery and celery.origin else __file__
    for path in (sys.executable, os.__file__, str(PROJECT / "omni" / "celery.py"), library):
        with Path(path).open("rb") as file:
            file.read(1)
    for name in _OWN:
        (place.directory / name / ".trial").touch()
        (place.directory / name / ".trial").unlink()
    if place.broker_folder is not None and not os.access(place.broker_folder, os.X_OK):
        raise PermissionError(f"{place.broker_folder} is closed to user {place.uid}")


def hand_over(place: Place, given: Given) -> None:
    """Lay beside the worker's own directories what it may read: what it is told, and copies of its settings."""
    shutil.rmtree(place.given, ignore_errors=True)
    place.given.mkdir(mode=0o750)
    (place.given / "given.json").write_text(given.to_json(), encoding="utf-8")
    for name in _COPIES:
        source = place.directory / name
        if source.is_dir():
            shutil.copytree(source, place.given / name)
        elif source.exists():
            shutil.copy(source, place.given / name)
    for path in (place.given, *place.given.rglob("*")):
        os.chown(path, 0, place.uid)
        path.chmod(0o750 if path.is_dir() else 0o640)


def step_down(place: Place, registries: RegistrySettings, bwrap: str | None) -> None:
    """Become the worker's user, for good. Raises namespaces.Unavailable, OSError."""
    shown = _shown(place, registries, bwrap)
    hidden = {str(place.state)}
    hidden |= {top for one in shown if (top := namespaces.closed_above(one.path, place.uid)) is not None}
    namespaces.narrow(hidden, shown)
    with contextlib.suppress(cgroups.Unavailable):
        cgroups.delegate(place.groups, place.uid)
    namespaces.become(place.uid, [place.users])
    os.chdir(PROJECT)


def _shown(place: Place, registries: RegistrySettings, bwrap: str | None) -> list[Shown]:
    """What the worker needs to see, wherever it lies."""
    programs = [str(PROJECT), sys.prefix, sys.base_prefix, *sys.path, *([bwrap] if bwrap else [])]
    system = [bind.source for bind in bubblewrap.runtime_binds()]
    found = {path: Shown(path) for path in (*programs, *system, *registries.paths) if path and Path(path).exists()}
    for name in _OWN:
        path = str(place.directory / name)
        found[path] = Shown(path, writable=True)
    for name in _COPIES:
        if (place.given / name).exists():
            path = str(place.directory / name)
            found[path] = Shown(path, source=str(place.given / name))
    if place.given.exists():
        found[str(place.given)] = Shown(str(place.given))
    if place.engine and place.door.is_dir():
        found[str(place.door)] = Shown(str(place.door), writable=True)
    if place.broker_folder is not None and place.broker_folder.exists():
        found[str(place.broker_folder)] = Shown(str(place.broker_folder), writable=True)
    return list(found.values())


def own_environment(place: Place) -> dict[str, str]:
    """By allow-list: what else stands in root's environment is not the worker's to know."""
    kept = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name.startswith(_PREFIXES)}
    return {
        **kept,
        "HOME": str(place.directory / "tmp"),
        "TMPDIR": str(place.directory / "tmp"),
        "PYTHONWARNINGS": "ignore:You're running the worker with superuser",  # Celery's; we are root of a namespace
        worker_given.VARIABLE: str(place.given / "given.json"),
    }


def _noted(facts: Facts, notes: list[str]) -> Facts:
    return replace(facts, notes=[*facts.notes, *notes])


def _run(command: list[str], environment: dict[str, str]) -> NoReturn:
    sys.stderr.flush()
    os.execvpe(command[0], command, environment)  # noqa: S606 - the point of it


if __name__ == "__main__":
    main(sys.argv[1:])
