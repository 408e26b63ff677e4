"""Services that nobody registers by hand: the platform's own parts, and those of config.json.

Owns what they are, and the one verb that brings the table to it. Run by the leader's watch; without a difference it
asks the database one question.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings

from consensus import gate
from consensus.gate import Transaction
from instances.models import Node
from omni.kernel import clock, service_keys
from omni.kernel.config import Config
from omni.kernel.context import system
from omni.kernel.errors import Conflict, InvalidInput
from omni.kernel.service_keys import Definition
from services import definitions, services
from services.definitions import PLATFORM_PREFIX, Given
from services.models import Service

_log = logging.getLogger("omni.services")
_AGAIN_S = 15.0  # what is refused today may be fine tomorrow: a remedy's app is created after the start
_PART_S = 4.0  # as often as the leader asks its parts


def own_parts(config: Config, nodes: Sequence[str]) -> list[Given]:
    """The platform's own services, as the configuration and the known nodes have it."""
    found = [
        _part("database", "critical", owner="database"),
        _part("broker", "warning"),
        _part("workers", "warning", on=["broker"]),
        _part("ingress", "critical"),
    ]
    if len(config.members) > 1:
        found += [_part(f"raft {member.id}", "warning") for member in config.members]
    members = {member.id for member in config.members} if len(config.members) > 1 else set()
    for node in nodes:
        below = [f"raft {node}"] if node in members else []
        found.append(_part(f"agent {node}", "warning", on=below))
        disk = {"type": "disk", "node": node, "path": str(config.state), "warn_percent": 10.0, "fail_percent": 3.0}
        found.append(_own(f"disk {node}", disk, "critical", on=[f"agent {node}"], interval_s=30.0))
    if config.ingress.https_port:
        tls = {"type": "tls", "host": config.ingress_address, "port": config.ingress.https_port, "verify": False,
               "server_name": config.domain, "warn_days": 14.0, "fail_days": 3.0}  # fmt: skip
        if config.ingress.https_issuer == "internal":  # good for hours, and renewed by the ingress itself
            tls |= {"warn_days": 0.1, "fail_days": 0.02}
        found.append(_own("certificate", tls, "critical", on=["ingress"], interval_s=60.0))
    return found


def _part(part: str, severity: str, *, on: Sequence[str] = (), owner: str = "") -> Given:
    return _own(part, {"type": "part", "part": part}, severity, on=on, interval_s=_PART_S, owner=owner)


def _own(
    name: str, check: Mapping[str, Any], severity: str, *, on: Sequence[str], interval_s: float, owner: str = ""
) -> Given:
    given = {"interval_s": interval_s, "timeout_s": 3.0, "severity": severity, "owner": owner}
    columns = service_keys.as_json(Definition.model_validate(given))
    columns |= {
        "name": PLATFORM_PREFIX + name.replace(" ", ":", 1),
        "check_spec": definitions.columns_of_part(check),
        "depends_on": [PLATFORM_PREFIX + one.replace(" ", ":", 1) for one in on],
    }
    return Given(columns, "")


class Registrar:
    """Remembers what it has brought about, so that a tick that changes nothing costs nothing."""

    def __init__(self) -> None:
        self._done: object = None
        self._refused: str = ""
        self._tried = float("-inf")

    def register(self, nodes: list[str]) -> None:
        """Bring the platform's services and config.json's to what they are to be."""
        wanted = (tuple(nodes), settings.CONFIG.services)
        if wanted == self._done and not (self._refused and clock.monotonic() - self._tried > _AGAIN_S):
            return
        self._tried = clock.monotonic()
        config = settings.CONFIG
        gate.run(
            lambda tx: bring(tx, "platform", own_parts(config, _known_nodes(nodes))),
            actor=system("services"), cause="the platform's own parts",
        )  # fmt: skip
        self._from_config(config)
        self._done = wanted

    def _from_config(self, config: Config) -> None:
        given = [definitions.of_keys(keys) for keys in config.services]
        try:
            gate.run(lambda tx: bring(tx, "config", given), actor=system("services"), cause="config.json")
        except (InvalidInput, Conflict) as error:
            why = "; ".join(f"{one.pointer}: {one.detail}" for one in error.errors) or error.detail
            if why != self._refused:
                _log.error("services of config.json cannot be registered, tried again every %g s: %s", _AGAIN_S, why)
            self._refused = why
        else:
            self._refused = ""


def _known_nodes(ready: Sequence[str]) -> list[str]:
    """A node that is lost at the moment stays watched; that is what it is watched for."""
    return sorted({*ready, *Node.objects.values_list("name", flat=True)})


def bring(tx: Transaction, source: str, wanted: Sequence[Given]) -> None:
    """Create, change and remove services of one source. Raises Conflict for a name that another source has."""
    known = {service.name: service for service in Service.objects.filter(source=source)}
    names = {given.columns["name"] for given in wanted}
    for name in sorted(set(known) - names):
        tx.record("service.removed", "service", known[name].pk, change={"name": name})
        known[name].delete()
    for given in _dependencies_first(wanted):
        service = known.get(given.columns["name"])
        if service is None:
            services.create_service(tx, given, source=source)
        else:
            services.update_service(tx, service, _kept(service, given), by_source=True)


def _kept(service: Service, given: Given) -> Given:
    """What an operator may change on any service stays as the operator left it."""
    if service.source != "platform":
        return given
    return Given({**given.columns, "severity": service.severity, "owner": service.owner,
                  "description": service.description}, given.remedy_secret)  # fmt: skip


def _dependencies_first(wanted: Sequence[Given]) -> list[Given]:
    left, done, order = list(wanted), set[str](), list[Given]()
    names = {given.columns["name"] for given in wanted}
    while left:
        ready = [g for g in left if not (set(g.columns["depends_on"]) & names) - done]
        for given in ready or left:  # a circle is refused by the verb
            order.append(given)
            done.add(given.columns["name"])
        left = [given for given in left if given.columns["name"] not in done]
    return order
