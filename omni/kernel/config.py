"""The configuration: the sole reader of config.json and of the environment.

`load()` answers a frozen `Config` or raises `ConfigError` with every mistake at once, each one line. Keys and defaults
are in `config_keys`, rules between them in `config_checks`, syntax in `config_sources`; docs/config.md is generated
from them. Must not import Django, open a connection, or create anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import unquote, urlsplit

from pydantic import PrivateAttr, ValidationError

from omni.kernel import config_checks, config_databases, config_members, config_sources
from omni.kernel.config_databases import DatabaseConfig as DatabaseConfig
from omni.kernel.config_keys import InstanceEntry, Keys
from omni.kernel.config_members import Member as Member
from omni.kernel.config_sources import Sources

Role = Literal["web", "daemon", "raft", "agent", "worker", "ingress", "command"]
_ROLES = ("web", "daemon", "raft", "agent", "worker", "ingress", "command")
_WITHOUT_DATABASE = ("raft", "worker", "agent", "ingress")  # these are given none, and all but Raft no secret
_SOCKET_PATH_MAX = 100  # 108 with the closing zero is the kernel's limit
_PROJECT = Path(__file__).resolve().parents[2]


class ConfigError(Exception):
    """The configuration cannot be used; `messages` holds one line for each mistake."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


@dataclass(frozen=True, slots=True)
class _Run:
    """What this one process was told beside the keys."""

    file: Path | None
    folder: Path
    node: str = ""
    explicit: bool = False  # port or address were given to this process, not by the file that all share
    role: Role = "command"
    sql: bool = False
    warnings: tuple[str, ...] = ()
    origins: Mapping[tuple[str, ...], str] = field(default_factory=dict)


class Config(Keys):
    """The keys of config.json after the environment, and what follows from them."""

    _run: _Run = PrivateAttr()

    @property
    def file(self) -> Path | None:
        return self._run.file

    @property
    def role(self) -> Role:
        return self._run.role

    @property
    def sql(self) -> bool:
        """Print SQL even where no terminal is attached (`--sql`)."""
        return self._run.sql

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._run.warnings

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The nodes in the order of `instances`; without `instances`, this node alone."""
        entries = self.instances or (InstanceEntry(port=self.port, address=_reachable(self.address)),)
        return tuple(Member(entry.port, entry.address) for entry in entries)

    @cached_property
    def me(self) -> Member:
        """The node that this process belongs to."""
        told = config_members.Told(self._run.node, self.port, self.address, self._run.explicit)
        return config_members.find(self.members, told, config_checks.host_of)

    @property
    def index(self) -> int:
        """Position of this node in `instances`; instance ports follow from it."""
        return self.members.index(self.me)

    @cached_property
    def hosts(self) -> tuple[str, ...]:
        """The distinct hosts; every loopback address is one and the same."""
        return tuple(dict.fromkeys(config_checks.host_of(member.address) for member in self.members))

    @property
    def several_hosts(self) -> bool:
        return len(self.hosts) > 1

    @cached_property
    def members_here(self) -> tuple[Member, ...]:
        """The nodes on the host of `me`."""
        mine = config_checks.host_of(self.me.address)
        return tuple(member for member in self.members if config_checks.host_of(member.address) == mine)

    @property
    def listen_address(self) -> str:
        """What this node's web server binds."""
        return self.listen_address_of(self.me)

    def listen_address_of(self, member: Member) -> str:
        """What the member's web server binds."""
        wildcard = self.address in config_checks.WILDCARDS and not self.instances
        return self.bind_address or (self.address if wildcard else member.address)

    def raft_port(self, member: Member) -> int:
        return member.port + self.raft_port_offset

    def member_port(self, member: Member) -> int:
        """Where the other hosts reach the member, over TLS."""
        return member.port + self.member_port_offset

    def reach(self, member: Member) -> str:
        """The URL at which processes of this host reach the member: within the host plain, else over TLS."""
        if config_checks.host_of(member.address) == config_checks.host_of(self.me.address):
            return member.url
        return f"https://{config_members.bracketed(member.address)}:{self.member_port(member)}"

    def control_plane(self, first: Member) -> list[str]:
        """Every member as processes of this host reach it: `first`, then those of this host, then the others."""
        here = self.members_here
        order = sorted(self.members, key=lambda member: (member != first, member not in here))
        return [self.reach(member) for member in order]

    @property
    def ingress_address(self) -> str:
        """What this host's ingress listens on: as given, else loopback, or with several hosts this host's address."""
        if self.several_hosts and self.origin("ingress", "address") == "default":
            return self.me.address
        return self.ingress.address

    def port_range(self, member: Member) -> tuple[int, int]:
        """First and last port of the member's instances."""
        first = self.agent.port_base + self.agent.port_count * self.members.index(member)
        return first, first + self.agent.port_count - 1

    @cached_property
    def state(self) -> Path:
        """The state directory, absolute."""
        return self._resolve(self.state_dir)

    @cached_property
    def artifacts_path(self) -> Path:
        return self._resolve(self.artifacts.directory) if self.artifacts.directory else self.state / "artifacts"

    def node_dir(self, member: Member) -> Path:
        return self.state / f"node-{member.port}"

    @cached_property
    def database(self) -> DatabaseConfig:
        return self._database(self.database_url.get_secret_value(), "omni.sqlite3")

    @cached_property
    def telemetry_database(self) -> DatabaseConfig:
        """Like `database` unless given; with SQLite a file of its own, so that log lines never hold its lock."""
        given = self.telemetry_database_url.get_secret_value()
        if given or self.database.engine == "sqlite":
            return self._database(given, "telemetry.sqlite3")
        return self.database

    @property
    def embedded_broker(self) -> bool:
        return not self.broker_url.get_secret_value()

    @property
    def broker(self) -> str:
        """The broker as Celery wants it; without one given, our Valkey's socket (on Windows a folder)."""
        given = self.broker_url.get_secret_value()
        if given.startswith("unix://"):
            return "redis+socket://" + given.removeprefix("unix://")
        return given or ("filesystem://" if sys.platform == "win32" else f"redis+socket://{self.broker_socket}")

    @property
    def broker_socket(self) -> str:
        """In a folder of its own, so that the build worker may come in there and nowhere else."""
        return self.socket_path("broker/broker")

    def socket_path(self, name: str) -> str:
        """Where the socket `name` lies: in `run/`, or in the temporary directory when that path is too long for one."""
        path = str(self.state / "run" / f"{name}.sock")
        if len(path.encode()) <= _SOCKET_PATH_MAX:
            return path
        digest = hashlib.sha256(str(self.state).encode()).hexdigest()[:16]
        return str(Path(tempfile.gettempdir()) / f"omni-{digest}" / f"{name}.sock")

    @property
    def secure_cookies(self) -> bool:
        given = self.web.secure_cookies
        return self.web.public_url.startswith("https://") if given is None else given

    @property
    def ingress_url(self) -> str:
        """How users reach the ingress: `http://<domain>:<port>` without the app's label."""
        return f"http://{self.domain}" + ("" if self.ingress.port == 80 else f":{self.ingress.port}")

    def origin(self, *path: str) -> str:
        """Which file or variable gave a key; `default` when none did."""
        return self._run.origins.get(path, "default")

    def _resolve(self, text: str) -> Path:
        path = Path(text).expanduser()
        if not path.is_absolute():
            path = self._run.folder / path
        return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a link that the user chose

    def _database(self, url: str, file: str) -> DatabaseConfig:
        if not url:
            return DatabaseConfig("sqlite", path=str(self.state / file))
        parts = urlsplit(url)
        if parts.scheme == "sqlite":
            path = unquote(parts.path)
            return DatabaseConfig("sqlite", path=str(self._resolve(path[1:] if path.startswith("/") else path)))
        return config_databases.mysql(url)


def _reachable(address: str) -> str:
    return "127.0.0.1" if address in config_checks.WILDCARDS else address


def default_file() -> Path:
    """The config.json of the project."""
    return _PROJECT / "config.json"


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    port: int | None = None,
    address: str | None = None,
) -> Config:
    """Read `path` (default: OMNI_CONFIG, else the project's config.json) and the environment.

    `port` and `address` (of a command line) say which node this is. Raises ConfigError with every mistake at once.
    """
    environ = os.environ if environ is None else environ
    file = path or Path(environ.get("OMNI_CONFIG") or default_file())
    sources = config_sources.read(file, environ)
    if port is not None:
        sources.values["port"], sources.origins["port",] = port, "--port"
    if address is not None:
        sources.values["address"], sources.origins["address",] = address, "--address"
    config = _validate(sources)
    folder = Path.cwd() if "OMNI_STATE" in environ else file.resolve().parent
    role = environ.get("OMNI_ROLE", "command")
    if role not in _ROLES:
        sources.errors.append(f'OMNI_ROLE = "{role}": is none of {", ".join(_ROLES)}; leave it to start.sh')
        role = "command"
    node = environ.get("OMNI_NODE", "") if port is None and address is None else ""
    sql = environ.get("OMNI_SQL", "") not in ("", "0")
    origins = dict(sources.origins) | {info.path: sources.file for info in _given_in_file(sources)}
    explicit = ("port",) in sources.origins or ("address",) in sources.origins
    config._run = _Run(file, folder, node, explicit, cast(Role, role), sql, origins=origins)
    config_checks.check(config, sources, alone=role in _WITHOUT_DATABASE)
    _check_me(config, sources, node)
    if sources.errors:
        raise ConfigError(list(dict.fromkeys(sources.errors)))
    config._run = replace(config._run, warnings=tuple(sources.warnings))
    return config


def load_or_exit(path: Path | None = None, environ: Mapping[str, str] | None = None, **which: Any) -> Config:
    """`load`, for programs: prints the mistakes and exits 2."""
    try:
        return load(path, environ, **which)
    except ConfigError as error:
        print("The configuration cannot be used:", *error.messages, sep="\n  ", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


def _given_in_file(sources: Sources) -> list[config_sources.KeyInfo]:
    given = []
    for info in config_sources.KEYS.values():
        place: Any = sources.values
        for part in info.path:
            place = place.get(part) if isinstance(place, dict) else None
        if place is not None and info.path not in sources.origins:
            given.append(info)
    return given


def _check_me(config: Config, sources: Sources, node: str) -> None:
    known = ", ".join(member.netloc for member in config.members)
    if node and not any(member.id == node for member in config.members):
        sources.errors.append(f'OMNI_NODE = "{node}": is no node of instances ({known}); write <address>-<port> of one')
        return
    try:
        _ = config.me
    except LookupError:
        fix = (
            "name one of them by OMNI_PORT and OMNI_ADDRESS, add it to instances, or set OMNI_INSTANCES=[] to run alone"
        )
        here = ("port",) if sources.origin(("address",)) == "default" else ("address",)
        sources.complain(here, getattr(config, here[0]), f"no node of instances is this one ({known})", fix)


def _validate(sources: Sources) -> Config:
    """The model of the values; what is wrong is complained of and left out, so that the other checks still run."""
    values = sources.values
    for _ in range(len(config_sources.KEYS) + 64):
        try:
            return Config.model_validate_json(_dump(values))
        except ValidationError as error:
            for item in error.errors():
                _complain(item, sources)
            for item in sorted(error.errors(), key=lambda item: [str(part) for part in item["loc"]], reverse=True):
                _drop(values, item["loc"])
    raise ConfigError(sources.errors)


def _dump(values: dict[str, Any]) -> str:
    return json.dumps(values)


def _complain(item: Any, sources: Sources) -> None:
    path = tuple(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        siblings = [info.path[-1] for info in config_sources.KEYS.values() if info.path[:-1] == path[:-1]]
        siblings += [name for name in Keys.model_fields if len(path) == 1]
        siblings += ["port", "address"] if path[0] == "instances" else []
        hint = config_sources.closest(path[-1], siblings)
        sources.complain(path, item["input"], "is no key of ours", hint or "remove it (docs/config.md lists the keys)")
        return
    info = config_sources.KEYS.get(path)
    fix = f"docs/config.md describes it ({info.field.description})" if info else "docs/config.md shows the form"
    value = "nothing" if item["type"] == "missing" else item["input"]
    sources.complain(path, value, item["msg"][:1].lower() + item["msg"][1:], fix)


def _drop(values: Any, loc: tuple[Any, ...]) -> None:
    """Take the value at `loc` out; of a list the whole entry."""
    place, steps = values, list(loc)
    for depth, step in enumerate(steps[:-1]):
        if isinstance(place, list):
            break
        below = place.get(step) if isinstance(place, dict) else None
        if not isinstance(below, (dict, list)):
            steps = steps[: depth + 1]
            break
        place = below
    step = steps[-1] if isinstance(place, dict) else next(part for part in steps if isinstance(part, int))
    if isinstance(place, dict):
        place.pop(step, None)
    elif isinstance(place, list) and step < len(place):
        place.pop(step)
