"""What must hold between keys of the configuration: nodes, ports, hosts, timings, secrets, passwords.

Owns the rules, each with its fix. Adds every mistake to the `Sources` it is given and never stops at the first. Must
not read files or the environment.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from omni.kernel import config_databases, resolvers
from omni.kernel.config_keys import Keys
from omni.kernel.config_sources import Sources
from sandbox import addresses

KNOWN_PASSWORDS = frozenset(
    {
        "root",
        "admin",
        "administrator",
        "password",
        "passw0rd",
        "changeme",
        "secret",
        "omni",
        "mysql",
        "mariadb",
        "redis",
    }
    | {"valkey", "test", "guest", "toor", "123456", "12345678", "letmein", "default"}
)
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, never bound here
_SECRET_MIN = 32


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost" or address.endswith(".localhost")


def host_of(address: str) -> str:
    """The host that an address stands for: every loopback address is this one."""
    return "loopback" if is_loopback(address) or address in WILDCARDS else address.lower()


def check(keys: Keys, sources: Sources, *, alone: bool = False) -> None:
    """Add every mistake that shows only between keys; `alone` is a process that gets no database and no secret."""
    _check_nodes(keys, sources)
    _check_ports(keys, sources)
    if not alone:
        _check_hosts(keys, sources)
    _check_timings(keys, sources)
    _check_consensus(keys, sources)
    _check_limits(keys, sources)
    _check_urls(keys, sources)
    _check_storage(keys, sources)
    _check_domains(keys, sources)
    _check_outgoing(keys, sources)
    _check_alerts(keys, sources)
    _check_services(keys, sources)
    if keys.failpoints and keys.environment == "production":
        fix = "remove it, or set OMNI_ENV=development on a machine of your own"
        sources.complain(("failpoints",), keys.failpoints, "breaks things on purpose, for tests of failures", fix)


def _check_nodes(keys: Keys, sources: Sources) -> None:
    seen: set[tuple[str, int]] = set()
    for index, entry in enumerate(keys.instances):
        path = ("instances", str(index))
        text = f"{entry.address}:{entry.port}"
        if (host_of(entry.address), entry.port) in seen:
            sources.complain(path, text, "this node is listed twice", "give each node its own port or address")
        seen.add((host_of(entry.address), entry.port))
        if entry.address in WILDCARDS:
            fix = 'name the address that other nodes reach it at, and set "bind_address" to listen everywhere'
            sources.complain((*path, "address"), entry.address, "is no address to reach a node at", fix)
    if len({host_of(entry.address) for entry in keys.instances}) > 1:
        for index, entry in enumerate(keys.instances):
            if is_loopback(entry.address):
                fix = "give the address that the other hosts reach it at"
                sources.complain(
                    ("instances", str(index), "address"),
                    entry.address,
                    "other hosts cannot reach a loopback address",
                    fix,
                )


def _used_ports(keys: Keys) -> Iterator[tuple[str, int, tuple[str, ...], str]]:
    """(host, port, key, what for) of everything that will listen."""
    nodes = keys.instances or ()
    for index, entry in enumerate(nodes):
        yield (
            host_of(entry.address),
            entry.port,
            ("instances", str(index), "port"),
            f"the node {entry.address}:{entry.port}",
        )
    for index, entry in enumerate(nodes):
        raft = entry.port + keys.raft_port_offset
        what = f"Raft of {entry.address}:{entry.port} (port + raft_port_offset)"
        yield host_of(entry.address), raft, ("instances", str(index), "port"), what
    if len({host_of(entry.address) for entry in nodes}) > 1:
        for index, entry in enumerate(nodes):
            what = f"the other hosts' way to {entry.address}:{entry.port} (port + member_port_offset)"
            yield host_of(entry.address), entry.port + keys.member_port_offset, ("instances", str(index), "port"), what
    if not nodes:
        yield host_of(keys.address), keys.port, ("port",), "this node"
        yield host_of(keys.address), keys.port + keys.raft_port_offset, ("port",), "Raft (port + raft_port_offset)"
    for host in {host_of(entry.address) for entry in nodes} or {host_of(keys.address)}:
        yield host, keys.ingress.port, ("ingress", "port"), "the ingress"
        if keys.ingress.https_port:
            yield host, keys.ingress.https_port, ("ingress", "https_port"), "the ingress (HTTPS)"


def _check_ports(keys: Keys, sources: Sources) -> None:
    duplicates = {(host_of(e.address), e.port) for i, e in enumerate(keys.instances) if e in keys.instances[:i]}
    taken: dict[tuple[str, int], str] = {}
    count = max(1, len(keys.instances))
    first, last = keys.agent.port_base, keys.agent.port_base + keys.agent.port_count * count - 1
    if last > 65_535:
        fix = "lower agent.port_base or agent.port_count"
        sources.complain(("agent", "port_base"), first, f"{count} nodes' instances would need ports up to {last}", fix)
    for host, port, path, what in _used_ports(keys):
        if port > 65_535:
            sources.complain(
                path, port, f"is no port; wanted by {what}", "lower the port, raft_port_offset or member_port_offset"
            )
        elif first <= port <= last:
            problem = f"wanted by {what}, but {first}-{last} are the instances' ports"
            sources.complain(path, port, problem, "choose a port outside, or move agent.port_base")
        elif (host, port) in taken and (host, port) not in duplicates and not _is_raft_twin(keys, host, port):
            sources.complain(
                path, port, f"wanted by {what} and by {taken[host, port]}", "give one of them another port"
            )
        taken.setdefault((host, port), what)


def _is_raft_twin(keys: Keys, host: str, port: int) -> bool:
    """A node listed twice has its Raft port twice too; one message is enough."""
    nodes = [(host_of(entry.address), entry.port) for entry in keys.instances]
    offsets = (0, keys.raft_port_offset, keys.member_port_offset)
    return any(nodes.count((host, port - offset)) > 1 for offset in offsets)


def _check_hosts(keys: Keys, sources: Sources) -> None:
    hosts = sorted({host_of(entry.address) for entry in keys.instances})
    if len(hosts) > 1:
        _check_several_hosts(keys, sources, hosts)
    secret = keys.secrets.cluster.get_secret_value()
    if secret and len(secret) < _SECRET_MIN:
        fix = f"use {_SECRET_MIN} characters or more (openssl rand -hex 32)"
        sources.complain(("secrets", "cluster"), secret, "is too short to keep strangers out", fix)


def _check_several_hosts(keys: Keys, sources: Sources, hosts: list[str]) -> None:
    shown = ", ".join(host for host in hosts if host != "loopback")
    if not keys.database_url.get_secret_value() or _scheme(keys.database_url) == "sqlite":
        fix = "give a MySQL or MariaDB server by database_url or OMNI_DATABASE_URL"
        sources.complain(("database_url",), keys.database_url, f"SQLite serves one host only, not {shown}", fix)
    if not keys.secrets.cluster.get_secret_value():
        fix = "give every host the same random one by OMNI_CLUSTER_SECRET or secrets.cluster (openssl rand -hex 32)"
        sources.complain(("secrets", "cluster"), "", f"the hosts {shown} need a common secret", fix)
    if not keys.artifacts.s3_bucket and keys.artifacts.copies > len(hosts):
        problem = f"there are only {len(hosts)} hosts to keep them, so no upload could be taken"
        sources.complain(("artifacts", "copies"), keys.artifacts.copies, problem, f"choose {len(hosts)} or less")
    if len(hosts) == 2:
        sources.warnings.append(
            f"instances: with two hosts ({shown}) the loss of the one that has more nodes, or of either when they have "
            "the same number, stops every write; three hosts go on without one"
        )
    if any(is_loopback(host) for host, _ in _servers(keys.database_url)):
        sources.warnings.append(
            "database_url names this very host: right only if each host has a server of one and the same Galera cluster"
        )


def _servers(url: SecretStr) -> tuple[tuple[str, int], ...]:
    try:
        found = config_databases.mysql(url.get_secret_value())
    except ValueError:
        return ()
    return () if found.socket or _scheme(url) not in ("mysql", "mariadb") else found.hosts


def _check_timings(keys: Keys, sources: Sources) -> None:
    times = keys.timings
    for lease, beat in (("node_lease_s", "heartbeat_s"), ("build_lease_s", "build_heartbeat_s")):
        held, every = getattr(times, lease), getattr(times, beat)
        if held <= 2 * every:
            problem = f"must be more than 2 x {beat} = {every:g}, or one lost message ends the lease"
            sources.complain(("timings", lease), held, problem, f"raise it above {2 * every:g} or lower {beat}")
    if times.rollup_retention_s < times.sample_retention_s:
        problem = f"is shorter than sample_retention_s = {times.sample_retention_s:g}"
        fix = "keep rolled-up samples at least as long as raw ones"
        sources.complain(("timings", "rollup_retention_s"), times.rollup_retention_s, problem, fix)
    if times.shutdown_s >= 30:
        fix = "choose less than 30"
        sources.complain(("timings", "shutdown_s"), times.shutdown_s, "start.sh promises to be gone within 30 s", fix)
    if times.forward_timeout_s <= times.write_wait_s:
        problem = f"must be more than write_wait_s = {times.write_wait_s:g}, which the leader may use up itself"
        sources.complain(("timings", "forward_timeout_s"), times.forward_timeout_s, problem, "raise it")
    if times.sample_retention_s <= times.sample_interval_s:
        problem = f"is no longer than sample_interval_s = {times.sample_interval_s:g}: nothing would be kept"
        sources.complain(("timings", "sample_retention_s"), times.sample_retention_s, problem, "raise it")


def _check_consensus(keys: Keys, sources: Sources) -> None:
    raft = keys.consensus

    def complain(name: str, problem: str, fix: str) -> None:
        sources.complain(("consensus", name), getattr(raft, name), problem, fix)

    if raft.election_max_s <= raft.election_min_s:
        problem = f"must be more than election_min_s = {raft.election_min_s:g}, or votes split for ever"
        complain("election_max_s", problem, "raise it, best to twice as much")
    if raft.heartbeat_s * 3 >= raft.election_min_s:
        problem = f"must be less than a third of election_min_s = {raft.election_min_s:g}, or one late message elects"
        complain("heartbeat_s", problem, "lower it or raise election_min_s")
    if raft.leader_lease_s >= raft.election_min_s:
        problem = f"must be less than election_min_s = {raft.election_min_s:g}, or two leaders could overlap"
        complain("leader_lease_s", problem, "lower it or raise election_min_s")
    if raft.leader_lease_s <= raft.heartbeat_s * 2:
        problem = f"must be more than 2 x heartbeat_s = {raft.heartbeat_s:g}, or one late answer ends the leadership"
        complain("leader_lease_s", problem, "raise it or lower heartbeat_s")


def _check_limits(keys: Keys, sources: Sources) -> None:
    limits = keys.limits
    if limits.archive_member_bytes > limits.archive_bytes:
        problem = f"is more than archive_bytes = {limits.archive_bytes}"
        sources.complain(("limits", "archive_member_bytes"), limits.archive_member_bytes, problem, "lower it")
    if limits.build_file_mb > limits.build_disk_mb:
        problem = f"is more than build_disk_mb = {limits.build_disk_mb}"
        sources.complain(("limits", "build_file_mb"), limits.build_file_mb, problem, "lower it")


def _scheme(url: SecretStr) -> str:
    return url.get_secret_value().partition("://")[0].lower()


def _check_urls(keys: Keys, sources: Sources) -> None:
    wanted = {
        "database_url": (("mysql", "mariadb", "sqlite"), "mysql://user:password@host:3306/name"),
        "telemetry_database_url": (("mysql", "mariadb", "sqlite"), "mysql://user:password@host:3306/name"),
        "broker_url": (("redis", "rediss", "redis+socket", "unix"), "redis://:password@host:6379/0"),
    }
    for name, (schemes, example) in wanted.items():
        value: SecretStr = getattr(keys, name)
        if value.get_secret_value():
            _check_url(name, value, schemes, example, keys, sources)
    if keys.web.public_url and urlsplit(keys.web.public_url).scheme not in ("http", "https"):
        sources.complain(
            ("web", "public_url"), keys.web.public_url, "is no http address", "write it like https://omni.example.org"
        )


def _check_url(
    name: str, value: SecretStr, schemes: tuple[str, ...], example: str, keys: Keys, sources: Sources
) -> None:
    path = (name,)
    fix = f"write it like {example}"
    url = value.get_secret_value()
    try:
        parts = urlsplit(url)
        if parts.scheme in ("mysql", "mariadb"):
            config_databases.mysql(url)
        elif parts.port == 0:
            raise ValueError("port 0")
    except ValueError:
        sources.complain(path, value, "has a port or host that is none", fix)
        return
    if parts.scheme not in schemes:
        sources.complain(path, value, f"must begin with one of {', '.join(s + '://' for s in schemes)}", fix)
        return
    if parts.scheme in ("mysql", "mariadb") and not parts.path.strip("/"):
        sources.complain(path, value, "names no database", fix)
    password = unquote(parts.password or "").lower()
    if keys.environment == "production" and password in KNOWN_PASSWORDS:
        advice = "choose a real password, or set OMNI_ENV=development on a machine of your own"
        sources.complain(path, value, "has a well-known default password", advice)


def _check_domains(keys: Keys, sources: Sources) -> None:
    try:
        resolvers.parse(keys.domains.resolvers)
    except ValueError as error:
        path = ("domains", "resolvers")
        sources.complain(path, keys.domains.resolvers, str(error), 'write them like "192.0.2.1, 192.0.2.2:5353"')


def _check_outgoing(keys: Keys, sources: Sources) -> None:
    for name in ("allow", "deny"):
        value: str = getattr(keys.outgoing, name)
        for text in networks(value):
            try:
                addresses.network(text)
            except ValueError:
                fix = 'write networks like "10.0.0.0/8, 127.0.0.1"'
                sources.complain(("outgoing", name), value, f"{text} is no network", fix)


def _check_services(keys: Keys, sources: Sources) -> None:
    names = [service.name for service in keys.services]
    for name in sorted({name for name in names if names.count(name) > 1}):
        sources.complain(("services",), name, "is the name of two services", "give each a name of its own")


def networks(text: str) -> list[str]:
    """The parts of a list of networks."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _check_alerts(keys: Keys, sources: Sources) -> None:
    alerts = keys.alerts
    if alerts.webhook_url and urlsplit(alerts.webhook_url).scheme not in ("http", "https"):
        fix = "write it like https://example.org/hooks/omni"
        sources.complain(("alerts", "webhook_url"), alerts.webhook_url, "is no http address", fix)
    if alerts.mail_to and not alerts.smtp_host:
        fix = "name the mail server by alerts.smtp_host"
        sources.complain(("alerts", "mail_to"), alerts.mail_to, "cannot be reached without a mail server", fix)


def _check_storage(keys: Keys, sources: Sources) -> None:
    store = keys.artifacts
    if bool(store.s3_access_key_id) != bool(store.s3_secret_access_key.get_secret_value()):
        fix = "give artifacts.s3_access_key_id and artifacts.s3_secret_access_key together"
        sources.complain(("artifacts", "s3_access_key_id"), store.s3_access_key_id, "is half a pair", fix)
    if store.directory and store.s3_bucket:
        sources.complain(
            ("artifacts", "s3_bucket"), store.s3_bucket, "is given beside artifacts.directory", "keep one of them"
        )
