"""Database URLs taken apart: one SQLite file, or a MySQL/MariaDB server, or several that hold the same data.

Owns the URL's form. `mysql://user:password@h1:3306,h2:3306,h3/name` names the servers of one Galera cluster. Must not
open a connection: which of them is used is `omni.database`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

DEFAULT_PORT = 3306


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """One database: a SQLite file (`path`), or servers by `hosts` (host, port), or one by `socket`."""

    engine: Literal["sqlite", "mysql"]
    path: str = ""
    hosts: tuple[tuple[str, int], ...] = ()
    name: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    socket: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def host(self) -> str:
        return self.hosts[0][0] if self.hosts else "127.0.0.1"

    @property
    def port(self) -> int:
        return self.hosts[0][1] if self.hosts else DEFAULT_PORT

    @property
    def several_servers(self) -> bool:
        return len(self.hosts) > 1 and not self.socket


def mysql(url: str) -> DatabaseConfig:
    """The servers that a `mysql://` or `mariadb://` URL names. Raises ValueError."""
    parts = urlsplit(url)
    account, _, places = parts.netloc.rpartition("@")
    user, _, password = account.partition(":")
    options = dict(parse_qsl(parts.query))
    return DatabaseConfig(
        "mysql",
        hosts=tuple(_place(place) for place in (places or "127.0.0.1").split(",")),
        name=unquote(parts.path.strip("/")),
        user=unquote(user),
        password=unquote(password),
        socket=options.pop("unix_socket", options.pop("socket", "")),
        options=tuple(sorted(options.items())),
    )


def _place(text: str) -> tuple[str, int]:
    """`host`, `host:port` or `[v6]:port`."""
    parts = urlsplit(f"//{text}")
    port = parts.port  # raises ValueError for what is none
    if not parts.hostname or port == 0:
        raise ValueError(f"{text!r} is no host")
    return parts.hostname, port or DEFAULT_PORT
