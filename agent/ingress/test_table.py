"""Which answers of the control plane may replace the route table, and what is left after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ingress.follow import Members, RouteFollower
from agent.ingress.table import RouteTable, Verdict
from agent.ingress.testbed.bed import until
from agent.ingress.testbed.control import ControlPlane
from agent.routing import HostRoute, Routes

pytestmark = pytest.mark.slow  # all of them together are: ./test.sh fast goes without


def routes(epoch: int, index: int, host: str = "a.x", cluster: str = "c") -> Routes:
    return Routes(cluster, epoch, index, [HostRoute(host, 1)])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_epoch_and_index_never_go_back(steps: list[tuple[int, int]]) -> None:
    table = RouteTable(Path("/nowhere"))
    best: tuple[int, int] | None = None
    for step in steps:
        verdict = table.judge(routes(*step))
        assert (verdict is Verdict.APPLIED) == (best is None or step > best)
        if verdict is Verdict.APPLIED:
            table._install(routes(*step))
            best = step
        assert table.position == best


def test_another_clusters_routes_are_never_applied(tmp_path: Path) -> None:
    table = RouteTable(tmp_path / "routes.json")
    assert asyncio.run(table.apply(routes(1, 1))) is Verdict.APPLIED
    assert asyncio.run(table.apply(routes(9, 9, "b.x", "other"))) is Verdict.FOREIGN
    assert table.lookup("a.x") is not None
    assert table.lookup("b.x") is None


def test_what_a_member_says_before_the_first_leader_makes_no_cluster_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    table = RouteTable(path)
    assert asyncio.run(table.apply(routes(0, 0, cluster=""))) is Verdict.OLDER
    assert not path.exists()
    table._install(routes(0, 0, cluster=""))  # as it may be on a disk
    assert asyncio.run(table.apply(routes(1, 1))) is Verdict.APPLIED
    assert table.lookup("a.x") is not None


def test_what_was_applied_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    asyncio.run(RouteTable(path).apply(routes(2, 5)))
    after = RouteTable(path)
    assert after.load()
    assert after.position == (2, 5)
    assert asyncio.run(after.apply(routes(2, 4))) is Verdict.OLDER


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"cluster_id": 1}'])
def test_a_damaged_table_is_left_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "routes.json"
    path.write_bytes(content)
    table = RouteTable(path)
    assert not table.load()
    assert asyncio.run(table.apply(routes(1, 1))) is Verdict.APPLIED
    assert orjson.loads(path.read_bytes())["index"] == 1


def test_the_follower_fails_over_and_survives_an_outage(tmp_path: Path) -> None:
    dead = ControlPlane()
    dead.close()
    first, second = ControlPlane(), ControlPlane()
    table = RouteTable(tmp_path / "routes.json")

    async def scenario() -> None:
        async with httpx.AsyncClient(headers={"Authorization": "Bearer secret"}) as client:
            members = Members((dead.url, first.url, second.url))
            task = asyncio.create_task(RouteFollower(client, members, table, 2.0).run())
            first.publish([HostRoute("one.x", 1)], index=5)
            await asyncio.to_thread(until, lambda: table.lookup("one.x"))
            first.close()
            second.publish([HostRoute("two.x", 1)], index=6)
            await asyncio.to_thread(until, lambda: table.lookup("two.x"))
            reads = second.reads
            second.publish([HostRoute("old.x", 1)], index=3)
            await asyncio.to_thread(until, lambda: second.reads > reads + 1)
            assert table.lookup("old.x") is None
            second.cluster_id = "stranger"
            second.publish([HostRoute("evil.x", 1)], epoch=9, index=99)
            reads = second.reads
            await asyncio.to_thread(until, lambda: second.reads > reads + 1)
            assert table.lookup("evil.x") is None
            assert table.lookup("two.x") is not None
            task.cancel()

    asyncio.run(scenario())
    second.close()


def test_a_database_that_was_put_back_is_followed_at_once(tmp_path: Path) -> None:
    """Its index is lower than the one we had: whoever waits for a higher one waits in vain."""
    before, after = ControlPlane(), ControlPlane()
    table = RouteTable(tmp_path / "routes.json")

    async def scenario() -> None:
        async with httpx.AsyncClient(headers={"Authorization": "Bearer secret"}) as client:
            task = asyncio.create_task(RouteFollower(client, Members((before.url, after.url)), table, 60.0).run())
            before.publish([HostRoute("new.x", 1)], index=500)
            await asyncio.to_thread(until, lambda: table.lookup("new.x"))
            after.publish([HostRoute("restored.x", 1)], epoch=1_001, index=20)
            before.close()
            await asyncio.to_thread(until, lambda: table.lookup("restored.x"))
            task.cancel()

    asyncio.run(scenario())
    after.close()
