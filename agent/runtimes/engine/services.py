"""Swarm services by a manager's API: finding them, judging them, leading their task out, removing them.

Owns these calls and nothing that lasts. Every one raises Away or Declined; what is gone already is no error.
"""

from __future__ import annotations

from typing import Any

from agent.runtimes.engine import tasks
from agent.runtimes.engine.client import Declined, Engine
from agent.runtimes.engine.tasks import PARKED, Verdict

_CHANGES_TRIED = 5
NO_MANAGER = 503


class Services:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._here = ""

    async def make(self, wanted: dict[str, Any]) -> str:
        """Its id. Declined with 409 when there is one of that name."""
        return await self._engine.call(lambda client: str(client.create_service(**wanted)["ID"]))

    async def list(self, labels: list[str]) -> list[dict[str, Any]]:
        return await self._engine.call(lambda client: client.services(filters={"label": labels}))

    async def get(self, service: str) -> dict[str, Any] | None:
        try:
            return await self._engine.call(lambda client: client.inspect_service(service))
        except Declined as error:
            if error.status == 404:
                return None
            raise

    async def verdict(self, service: str) -> Verdict:
        try:
            found = await self._engine.call(lambda client: client.tasks(filters={"service": service}))
        except Declined as error:
            if error.status != 404:
                raise
            found = []
        down: set[str] = set()
        if any(task["DesiredState"] != "running" and task["Status"]["State"] == "running" for task in found):
            nodes = await self._engine.call(lambda client: client.nodes())
            down = {str(node["ID"]) for node in nodes if node["Status"]["State"] == "down"}
        return tasks.judge(found, down)

    async def park(self, service: str) -> None:
        """From now on Swarm leads its task out and starts no other."""
        for left in reversed(range(_CHANGES_TRIED)):
            about = await self.get(service)
            if about is None or is_parked(about):
                return
            try:
                await self._engine.call(lambda client, about=about: _park(client, service, about))  # type: ignore[misc]
                return
            except Declined as error:  # Swarm itself has just written to it
                if "out of sequence" not in str(error) or not left:
                    raise

    async def remove(self, service: str) -> None:
        try:
            await self._engine.call(lambda client: client.remove_service(service))
        except Declined as error:
            if error.status != 404:
                raise

    async def swarm(self) -> dict[str, Any]:
        """What the engine says of its own place in the swarm."""
        found = await self._engine.call(lambda client: dict(client.info()["Swarm"]))
        self._here = str(found["NodeID"])
        return found

    async def is_here(self, seen: Verdict) -> bool:
        """Whether its container is on this very engine. Asked often, and the engine answers about itself slowly: the
        node's id is that of the last time."""
        if not seen.container:
            return False
        if not self._here:
            await self.swarm()
        return seen.node == self._here


def is_parked(service: dict[str, Any]) -> bool:
    return PARKED in ((service["Spec"]["TaskTemplate"].get("Placement") or {}).get("Constraints") or ())


def _park(client: Any, service: str, about: dict[str, Any]) -> None:
    template = {**about["Spec"]["TaskTemplate"], "Placement": {"Constraints": [PARKED]}}
    client.update_service(service, about["Version"]["Index"], task_template=template, fetch_current_spec=True)
