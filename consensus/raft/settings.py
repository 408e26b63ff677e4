"""What the Raft process needs to know, as plain data: taken from the configuration once, passed on as JSON.

Owns the places of its files. Reading the configuration and making a certificate takes libraries that a process which
runs for ever need not hold (a third of its memory): `__main__` does both and hands this to `process`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consensus.raft.elections import Timings
from consensus.tls import Identity

if TYPE_CHECKING:
    from omni.kernel.config import Config


@dataclass(frozen=True, slots=True)
class Settings:
    """`founders` are the configured members, `{id: Raft address}`; this one is among them."""

    me: str
    founders: dict[str, str]
    listen: tuple[str, int]
    folder: str
    page: str
    socket: str
    cluster_id: str
    timings: Timings
    compact_after: int
    log_format: str
    log_level: str
    faults: bool  # tests may cut connections
    identity: Identity

    def to_json(self) -> str:
        data = dataclasses.asdict(self)
        data["identity"] = {
            name: value.decode() if isinstance(value, bytes) else value for name, value in data["identity"].items()
        }
        return json.dumps(data)

    @staticmethod
    def from_json(text: str) -> Settings:
        data = json.loads(text)
        pem = {name: value if name == "member" else value.encode() for name, value in data.pop("identity").items()}
        host, port = data.pop("listen")
        timings = Timings(**data.pop("timings"))
        return Settings(**data, listen=(host, port), timings=timings, identity=Identity(**pem))


def of(config: Config, identity: Identity, cluster_id: str, *, faults: bool) -> Settings:
    node = config.node_dir(config.me)
    keys = config.consensus
    return Settings(
        me=config.me.id,
        founders={member.id: netloc(member.address, config.raft_port(member)) for member in config.members},
        listen=(config.bind_address or config.me.address, config.raft_port(config.me)),
        folder=str(node / "raft"),
        page=str(node / "raft.page"),
        socket=config.socket_path(f"raft-{config.me.port}"),
        cluster_id=cluster_id,
        timings=Timings(
            keys.election_min_s, keys.election_max_s, keys.heartbeat_s, keys.leader_lease_s, keys.fresh_wait_s
        ),
        compact_after=keys.compact_after,
        log_format=config.log_format,
        log_level=config.log_level,
        faults=faults,
        identity=identity,
    )


def netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
