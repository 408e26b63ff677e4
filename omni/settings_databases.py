"""Django's DATABASES from the configuration: the control plane's own, and telemetry on a connection of its own.

SQLite: WAL, IMMEDIATE transactions (with DEFERRED a quarter of the requests failed "database is locked" in trials),
`synchronous=FULL` for the control plane because an acknowledged write must survive a power cut. MySQL: strict mode,
READ COMMITTED, every time-out set. A build worker gets no database at all.
"""

from __future__ import annotations

from typing import Any

from omni.kernel.config import Config, DatabaseConfig

_CONNECTION_AGE_S = 60


def databases(config: Config) -> dict[str, dict[str, Any]]:
    if config.role in ("raft", "worker", "agent", "ingress"):
        return {}  # Django's dummy backend: these processes hold no database credentials
    return {
        "default": _entry(config.database, config.role, synchronous="FULL"),
        "telemetry": _entry(config.telemetry_database, config.role, synchronous="NORMAL"),
    }


def shares_schema(config: Config) -> bool:
    """Whether telemetry tables stand in the same schema as the rest (one MySQL database, two connections)."""
    return config.telemetry_database == config.database


def _entry(database: DatabaseConfig, role: str, *, synchronous: str) -> dict[str, Any]:
    # No health check per request (a round trip for each of two connections): omni.front.connections checks idle ones.
    common = {"ATOMIC_REQUESTS": False, "CONN_MAX_AGE": _CONNECTION_AGE_S, "CONN_HEALTH_CHECKS": False}
    if database.engine == "sqlite":
        pragmas = f"PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous}; PRAGMA temp_store=MEMORY;"
        options: dict[str, Any] = {"transaction_mode": "IMMEDIATE", "timeout": 5, "init_command": pragmas}
        # A file needs no age limit: opening it costs more than it saves.
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": database.path,
            "OPTIONS": options,
            **common,
            "CONN_MAX_AGE": None,
        }
    _choose_driver()
    # Short where another server can do it; a command (migrate, backup) may wait for one long statement.
    short = database.several_servers and role != "command"
    silence_s, lock_wait_s = (6, 4) if short else (30, 10)
    options = {
        "charset": "utf8mb4",
        "collation": "utf8mb4_unicode_ci",
        "isolation_level": "read committed",
        "init_command": "SET SESSION sql_mode='STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', "
        f"innodb_lock_wait_timeout={lock_wait_s}",
        "connect_timeout": 1 if database.several_servers else 3,
        "read_timeout": silence_s,
        "write_timeout": silence_s,
        **{name: int(value) if value.isdecimal() else value for name, value in database.options},
    }
    if database.socket:
        options["unix_socket"] = database.socket
    if database.several_servers:
        options["servers"] = database.hosts
    return {
        "ENGINE": "omni.mysql",
        "NAME": database.name,
        "USER": database.user,
        "PASSWORD": database.password,
        "HOST": "" if database.socket else database.host,
        "PORT": "" if database.socket else str(database.port),
        "OPTIONS": options,
        **common,
    }


def _choose_driver() -> None:
    """mysqlclient where it could be built, else PyMySQL under its name (22 ms a connect over TLS: no TLS locally)."""
    try:
        import MySQLdb  # noqa: F401
    except ImportError:
        import pymysql

        pymysql.install_as_MySQLdb()
