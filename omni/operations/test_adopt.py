"""A database changes its cluster on purpose, by name, and never under a living leader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from omni.testing.places import Place

pytestmark = pytest.mark.slow


@pytest.fixture
def two(copied: Place, fresh: Place) -> tuple[Place, Place]:
    """(theirs, ours): two installations with keys of their own; ours points at their database."""
    return pointed(copied, fresh)


def pointed(theirs: Place, ours: Place) -> tuple[Place, Place]:
    ours.url = theirs.url or f"sqlite:///{theirs.state / 'omni.sqlite3'}"
    ours.server = theirs.server
    if not theirs.url:
        ours.variables["OMNI_TELEMETRY_DATABASE_URL"] = f"sqlite:///{theirs.state / 'telemetry.sqlite3'}"
    return theirs, ours


def bring_master_key(theirs: Place, ours: Place) -> None:
    own = ours.state / "master.key"
    own.write_text(own.read_text() + (theirs.state / "master.key").read_text())


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("mariadb", marks=pytest.mark.long)])
def test_a_database_is_adopted_by_name_with_its_secrets(
    engine: str, copied: Place, fresh: Place, place: Callable[..., Place]
) -> None:
    theirs = copied
    if engine == "mariadb":
        theirs = place("theirs", engine)
        theirs.seed()
    theirs, ours = pointed(theirs, fresh)
    cluster_id, epoch, _ = theirs.fence()
    said = ours.refused("cluster_adopt")
    assert f"belongs to cluster {cluster_id} (epoch {epoch}, " in said
    assert "5 apps" in said
    assert f"--from {cluster_id}" in said
    assert "no such" not in ours.refused("cluster_adopt", "--from", "0123456789abcdef")
    said = ours.refused("cluster_adopt", "--from", cluster_id)
    assert "the environments of 5 apps were sealed with another master key" in said
    assert theirs.fence()[:2] == (cluster_id, epoch)

    bring_master_key(theirs, ours)
    said = ours.manage("cluster_adopt", "--from", cluster_id)
    assert "5 artifacts are not in" in said
    owner, after, _ = theirs.fence()
    assert owner != cluster_id
    assert owner in said
    assert after == epoch + 1_000
    kinds = [kind for (kind,) in theirs.sql("SELECT kind FROM kernel_event WHERE epoch > 999")]
    assert kinds[:2] == ["cluster.adopted", "nodes.to_report_anew"]
    assert "belongs to this cluster already" in ours.refused("cluster_adopt", "--from", owner)
    assert f"belongs to cluster {owner}" in theirs.refused("cluster_adopt")


@pytest.mark.long
def test_secrets_are_given_up_only_when_said(two: tuple[Place, Place]) -> None:
    theirs, ours = two
    said = ours.manage("cluster_adopt", "--from", theirs.fence()[0], "--give-up-secrets")
    assert "Set the environment of these apps anew, nobody can read it: app-00000, app-00001, " in said


def test_nobody_adopts_what_is_in_use(two: tuple[Place, Place]) -> None:
    theirs, ours = two
    bring_master_key(theirs, ours)
    cluster_id, epoch, index = theirs.fence()
    writer = theirs.start("-m", "omni.backup.testbed", "write", "--seconds", "30")
    try:
        while theirs.fence()[2] == index:
            assert writer.poll() is None
        said = ours.refused("cluster_adopt", "--from", cluster_id)
    finally:
        writer.kill()
        writer.communicate()
    assert "Stop both clusters first" in said
    assert theirs.fence()[:2] == (cluster_id, epoch)


@pytest.mark.long
def test_the_epoch_passes_every_one_that_an_agent_here_has_seen(two: tuple[Place, Place]) -> None:
    theirs, ours = two
    agent = ours.state / "node-8000" / "agent"
    agent.mkdir(parents=True)
    (agent / "applied.json").write_text('{"cluster_id": "x", "epoch": 5000, "index": 7}')
    ours.manage("cluster_adopt", "--from", theirs.fence()[0], "--give-up-secrets")
    assert theirs.fence()[1] == 6_000


@pytest.mark.long
def test_an_empty_database_needs_no_adoption(place: Callable[..., Place], fresh: Place, tmp_path: Path) -> None:
    ours = fresh
    assert "holds no cluster.secret" in place("never-started").refused("cluster_adopt")
    ours.url = f"sqlite:///{tmp_path / 'new.sqlite3'}"
    assert "migrate_all" in ours.refused("cluster_adopt")
