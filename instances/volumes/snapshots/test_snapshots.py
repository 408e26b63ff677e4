"""Snapshots of rows, with agents played by hand: who may ask, what has to be still, who ends what nobody ends."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.test import Client

from agent.plain import from_json
from agent.protocol import VolumeJob
from apps.models import App
from consensus import gate
from instances.conftest import Platform, call, node_token
from instances.models import Instance, Volume, VolumeRestore, VolumeSnapshot
from instances.volumes.snapshots.sweep import Sweep
from omni.front.intake import Upload
from omni.kernel import clock
from omni.kernel.models import Event
from omni.testing.factories import make_app, make_org, make_token
from releases.content_directory import ContentDirectory
from releases.models import Artifact
from releases.storage import ArtifactStore

pytestmark = [pytest.mark.slow, pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    made = ArtifactStore(ContentDirectory(tmp_path / "artifacts"))
    for module in ("releases.copies", "releases.relay", "instances.volumes.snapshots.api_agent", "instances.api_agent"):
        monkeypatch.setattr(f"{module}.store", lambda: made)
    return made


@pytest.fixture
def shop(platform: Platform) -> App:
    """Stopped, with a release and a volume."""
    app = make_app(platform.org, "shop", memory_mb=64, strategy={"min_ready_s": 0})
    platform.deploy(app, "v1")
    platform.settle()
    platform.call("POST", f"/app/{app.pk}/stop")
    platform.settle()
    body = {"name": "data", "path": "/data", "node": platform.node_names[1]}
    assert platform.call("POST", f"/app/{app.pk}/volumes", body).status_code == 201
    return app


def start(platform: Platform, app: App) -> None:
    assert platform.call("POST", f"/app/{app.pk}/start").status_code == 202
    platform.settle()
    assert Instance.objects.filter(app=app, status="running").count() == 1


def ask(platform: Platform, app: App, **fields: Any) -> Any:
    return platform.call("POST", f"/app/{app.pk}/volumes/data/snapshots", fields)


def restore(platform: Platform, app: App, snapshot: int, confirm: str = "?confirm=data", **fields: Any) -> Any:
    return platform.call("POST", f"/app/{app.pk}/volumes/data/restores{confirm}", {"snapshot": snapshot, **fields})


def jobs(platform: Platform, node: str = "") -> list[dict[str, Any]]:
    token = node_token(node or platform.node_names[1])
    return list(call(token, "GET", "/agent/assignments").json()["volume_jobs"])


def tell(platform: Platform, kind: str, number: int, *, node: str = "", **seen: Any) -> None:
    name = node or platform.node_names[1]
    report = {"node": name, "incarnation": 1, "volume_jobs": [{"kind": kind, "id": number, **seen}]}
    answer = call(node_token(name), "POST", "/agent/report", report)
    assert answer.status_code == 200, answer.content


def bring(platform: Platform, kept: ArtifactStore, number: int, content: bytes = b"archive") -> str:
    """What an agent does that takes a snapshot."""
    digest = hashlib.sha256(content).hexdigest()
    kept.put_file(digest, ContentFile(content))
    tell(platform, "snapshot", number, ended=True, sha256=digest, size=len(content), content_bytes=5, files=2,
         root={"uid": 7, "gid": 7, "mode": 448})  # fmt: skip
    return digest


def taken(platform: Platform, kept: ArtifactStore, app: App, content: bytes = b"archive") -> int:
    number = int(ask(platform, app).json()["id"])
    bring(platform, kept, number, content)
    return number


def test_a_snapshot_from_asking_to_its_end(platform: Platform, shop: App, kept: ArtifactStore) -> None:
    made = ask(platform, shop).json()
    assert (made["status"], made["consistency"], made["sha256"]) == ("pending", "stopped", None)
    volume = Volume.objects.get(app=shop)
    (job,) = jobs(platform)
    most = settings.CONFIG.limits.snapshot_max_bytes
    assert job == {"kind": "snapshot", "id": made["id"], "key": volume.key, "still": True, "max_bytes": most}
    assert from_json(VolumeJob, job).key == volume.key
    assert jobs(platform, platform.node_names[0]) == []
    tell(platform, "snapshot", made["id"], done_bytes=3)
    shown = platform.call("GET", made["links"]["self"]).json()
    assert (shown["status"], shown["done_bytes"]) == ("taking", 3)
    digest = bring(platform, kept, made["id"])
    shown = platform.call("GET", made["links"]["self"]).json()
    assert (shown["status"], shown["sha256"], shown["size_bytes"], shown["files"]) == ("succeeded", digest, 7, 2)
    assert jobs(platform) == []
    tell(platform, "snapshot", made["id"], ended=True, reason="failed")  # late
    assert VolumeSnapshot.objects.get().status == "succeeded"
    for path in (f"/app/{shop.pk}/snapshots", f"/app/{shop.pk}/volumes/data/snapshots"):
        assert [item["id"] for item in platform.call("GET", path).json()["items"]] == [made["id"]]
    kinds = Event.objects.filter(kind__startswith="snapshot.").order_by("key").values_list("kind", flat=True)
    assert list(kinds) == ["snapshot.created", "snapshot.taking", "snapshot.progressed", "snapshot.succeeded"]


@pytest.mark.long
def test_what_an_agent_says_it_brought_is_looked_for(platform: Platform, shop: App) -> None:
    number = ask(platform, shop).json()["id"]
    tell(platform, "snapshot", number, ended=True, sha256="0" * 64, size=7)
    row = VolumeSnapshot.objects.get()
    assert (row.status, row.reason, row.artifact_id) == ("failed", "archive_missing", None)


@pytest.mark.long
def test_of_a_running_app_it_is_live_and_stopped_only_when_it_is(platform: Platform, shop: App) -> None:
    start(platform, shop)
    refused = ask(platform, shop, consistency="stopped")
    assert (refused.status_code, refused.json()["code"]) == (409, "volume_in_use")
    assert ask(platform, shop).json()["consistency"] == "live"
    assert jobs(platform)[0]["still"] is False
    assert ask(platform, shop).json()["code"] == "volume_busy"
    assert ask(platform, shop, consistency="maybe").status_code == 422


def test_nothing_of_the_app_starts_while_its_volume_has_to_be_still(
    platform: Platform, shop: App, kept: ArtifactStore
) -> None:
    number = ask(platform, shop).json()["id"]
    assert platform.call("POST", f"/app/{shop.pk}/start").status_code == 202
    platform.settle()
    waiting = Instance.objects.get(app=shop, desired="run")
    assert waiting.status == "pending"
    assert {verdict["reason"] for verdict in waiting.placement["verdicts"]} == {
        f"snapshot {number} of its volume data is being taken with the app stopped"
    }
    assert [change["kind"] for change in waiting.placement["remedy"]] == ["wait_for_volume"]
    bring(platform, kept, number)
    platform.settle()
    assert Instance.objects.get(app=shop, desired="run").status == "running"


def test_a_restore_asks_and_then_replaces_what_is_there(platform: Platform, shop: App, kept: ArtifactStore) -> None:
    number = taken(platform, kept, shop)
    for given in ("", "?confirm=shop"):
        asked = restore(platform, shop, number, given)
        assert (asked.status_code, asked.json()["code"]) == (409, "confirmation_needed")
    plan = restore(platform, shop, number, "?dry_run=true").json()["plan"]
    assert [action["action"] for action in plan["actions"]] == ["destroy_volume", "restore_volume"]
    assert not VolumeRestore.objects.exists()
    made = restore(platform, shop, number)
    assert made.status_code == 202, made.content
    (job,) = jobs(platform)
    row = VolumeSnapshot.objects.get()
    assert job == {
        "kind": "restore", "id": made.json()["id"], "key": row.volume_key, "still": True, "sha256": row.artifact_id,
        "size": 7, "content_bytes": 5, "root": {"uid": 7, "gid": 7, "mode": 448},
    }  # fmt: skip
    path = f"/agent/packages/{row.artifact_id}"
    assert call(node_token(platform.node_names[1]), "GET", path).status_code == 200
    assert call(node_token(platform.node_names[0]), "GET", path).status_code == 403
    for again in (platform.call("DELETE", f"/app/{shop.pk}/volumes/data?confirm=data"), ask(platform, shop)):
        assert (again.status_code, again.json()["code"]) == (409, "volume_busy")
    gone = platform.call("DELETE", f"/app/{shop.pk}/snapshots/{number}?confirm={number}")
    assert gone.json()["code"] == "snapshot_in_use"
    tell(platform, "restore", made.json()["id"])
    assert platform.call("GET", made.json()["links"]["self"]).json()["status"] == "restoring"
    tell(platform, "restore", made.json()["id"], ended=True, done_bytes=5)
    assert platform.call("GET", made.json()["links"]["self"]).json()["status"] == "succeeded"
    assert jobs(platform) == []
    assert call(node_token(platform.node_names[1]), "GET", path).status_code == 403


def test_a_running_app_is_stopped_for_it_only_when_that_is_asked(
    platform: Platform, shop: App, kept: ArtifactStore
) -> None:
    number = taken(platform, kept, shop)
    start(platform, shop)
    refused = restore(platform, shop, number)
    assert (refused.status_code, refused.json()["code"]) == (409, "volume_in_use")
    made = restore(platform, shop, number, stop=True)
    assert made.status_code == 202, made.content
    assert jobs(platform) == []  # it still runs
    platform.settle()
    assert [job["id"] for job in jobs(platform)] == [made.json()["id"]]
    shop.refresh_from_db()
    assert shop.desired_state == "stopped"
    assert platform.call("POST", f"/app/{shop.pk}/start").status_code == 202
    platform.settle()
    assert Instance.objects.get(app=shop, desired="run").status == "pending"
    tell(platform, "restore", made.json()["id"], ended=True)
    platform.settle()
    assert Instance.objects.get(app=shop, desired="run").status == "running"


@pytest.mark.long
def test_only_what_succeeded_can_be_restored_and_only_where_the_node_is(
    platform: Platform, shop: App, kept: ArtifactStore
) -> None:
    number = ask(platform, shop).json()["id"]
    assert restore(platform, shop, number).json()["code"] == "snapshot_not_usable"
    assert restore(platform, shop, 999).status_code == 404
    bring(platform, kept, number)
    with gate.maintenance("test"):
        Volume.objects.update(node_name="elsewhere")
    assert restore(platform, shop, number).json()["code"] == "volume_node_away"
    assert ask(platform, shop).json()["code"] == "volume_node_away"


@pytest.mark.long
def test_a_snapshot_outlives_its_volume_and_goes_into_another_one(
    platform: Platform, shop: App, kept: ArtifactStore
) -> None:
    number = taken(platform, kept, shop)
    assert platform.call("DELETE", f"/app/{shop.pk}/volumes/data?confirm=data").status_code == 200
    body = {"name": "data", "path": "/data", "node": platform.node_names[0]}
    assert platform.call("POST", f"/app/{shop.pk}/volumes", body).status_code == 201
    assert restore(platform, shop, number).status_code == 202
    assert [job["kind"] for job in jobs(platform, platform.node_names[0])] == ["restore"]


def test_deleting_asks_and_the_bytes_go_with_the_row(platform: Platform, shop: App, kept: ArtifactStore) -> None:
    number = taken(platform, kept, shop)
    digest = VolumeSnapshot.objects.get().artifact_id
    path = f"/app/{shop.pk}/snapshots/{number}"
    assert platform.call("DELETE", path).json()["code"] == "confirmation_needed"
    assert platform.call("DELETE", f"{path}?dry_run=true").json()["plan"]["confirm"] == str(number)
    assert platform.call("DELETE", f"{path}?confirm={number}").status_code == 200
    assert platform.call("GET", path).status_code == 404
    assert digest is not None
    with gate.maintenance("test"):  # as old as one that was really taken
        Artifact.objects.update(created_at=clock.now() + dt.timedelta(seconds=5))
    Sweep().tick()
    assert not VolumeSnapshot.objects.exists()
    assert not Artifact.objects.filter(pk=digest).exists()
    assert not kept.exists(digest)


def test_bytes_that_two_snapshots_share_stay_for_the_other_one(
    platform: Platform, shop: App, kept: ArtifactStore
) -> None:
    first, second = taken(platform, kept, shop), taken(platform, kept, shop)
    assert platform.call("DELETE", f"/app/{shop.pk}/snapshots/{first}?confirm={first}").status_code == 200
    Sweep().tick()
    (row,) = VolumeSnapshot.objects.all()
    assert (row.pk, kept.exists(str(row.artifact_id))) == (second, True)


@pytest.mark.long
def test_calling_one_off_needs_no_confirmation(platform: Platform, shop: App) -> None:
    number = ask(platform, shop).json()["id"]
    assert platform.call("DELETE", f"/app/{shop.pk}/snapshots/{number}").status_code == 200
    assert jobs(platform) == []


@pytest.mark.long
def test_the_newest_are_kept(
    platform: Platform, shop: App, kept: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = settings.CONFIG.limits.model_copy(update={"snapshots_kept": 2})
    monkeypatch.setattr(settings, "CONFIG", settings.CONFIG.model_copy(update={"limits": limits}))
    numbers = [taken(platform, kept, shop, f"archive {n}".encode()) for n in range(3)]
    items = platform.call("GET", f"/app/{shop.pk}/snapshots").json()["items"]
    assert [item["id"] for item in items] == [numbers[2], numbers[1]]


@pytest.mark.parametrize(("begun", "reason"), [
    pytest.param(False, "agent_away", marks=pytest.mark.long), (True, "agent_lost"),
])  # fmt: skip
def test_what_nobody_ends_the_leader_gives_up_and_the_app_may_start_again(
    platform: Platform, shop: App, kept: ArtifactStore, begun: bool, reason: str
) -> None:
    made = restore(platform, shop, taken(platform, kept, shop)).json()
    if begun:
        tell(platform, "restore", made["id"])
    sweep = Sweep()
    sweep.tick()
    assert VolumeRestore.objects.get().ended_at is None
    with gate.maintenance("test"):
        VolumeRestore.objects.update(end_by=clock.now())
    sweep._look_at = 0.0
    sweep.tick()
    assert VolumeRestore.objects.get().ended_at is None  # a new leader gives everybody time to speak
    sweep._look_at = sweep._lenient_until = 0.0
    sweep.tick()
    row = VolumeRestore.objects.get()
    assert (row.status, row.reason) == ("lost", reason)
    assert jobs(platform) == []
    start(platform, shop)


def test_another_org_a_reader_and_another_node_get_nowhere(platform: Platform, shop: App, kept: ArtifactStore) -> None:
    number = taken(platform, kept, shop)
    base, stranger = f"/app/{shop.pk}", make_token(make_org("others"))
    for path in ("/snapshots", f"/snapshots/{number}", "/volumes/data/snapshots", "/volumes/data/restores"):
        assert call(stranger, "GET", base + path).status_code == 404
    assert call(stranger, "DELETE", f"{base}/snapshots/{number}?confirm={number}").status_code == 404
    assert call(stranger, "POST", f"{base}/volumes/data/restores?confirm=data", {"snapshot": number}).status_code == 404
    reader = make_token(platform.org, scopes=["volumes:read"])
    assert call(reader, "GET", f"{base}/snapshots/{number}").status_code == 200
    assert call(reader, "POST", f"{base}/volumes/data/snapshots", {}).status_code == 403
    assert call(reader, "DELETE", f"{base}/snapshots/{number}?confirm={number}").status_code == 403
    other = ask(platform, shop).json()["id"]
    tell(platform, "snapshot", other, node=platform.node_names[0], ended=True, reason="failed")
    assert VolumeSnapshot.objects.get(pk=other).status == "pending"
    mine = call(node_token(platform.node_names[0]), "PUT", f"/agent/snapshots/{other}")
    assert (mine.status_code, mine.json()["code"]) == (409, "snapshot_not_wanted")


@pytest.mark.long
def test_an_archive_is_judged_before_it_is_read_and_taken_over_afterwards(
    platform: Platform, shop: App, kept: ArtifactStore, tmp_path: Path
) -> None:
    number = ask(platform, shop).json()["id"]
    token, path = node_token(platform.node_names[1]), f"/agent/snapshots/{number}"

    def put(**meta: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        return Client().put(path, b"", content_type="application/gzip", headers=headers, **meta)

    assert put(**{"omni.phase": "preflight"}).status_code == 204
    assert put(**{"omni.phase": "take"}).status_code == 415
    body = tmp_path / "body"
    body.write_bytes(b"archive")
    digest = hashlib.sha256(b"archive").hexdigest()
    upload = Upload(body, digest, 7, "application/gzip")
    looked = put(**{"omni.phase": "inspect", "omni.upload": upload})
    assert (looked.status_code, looked["Omni-Keep"]) == (204, "yes")
    assert put(**{"omni.phase": "take", "omni.upload": upload}).json() == {"sha256": digest, "size": 7}
    assert kept.exists(digest)
    assert call(platform.token, "PUT", path).status_code == 403


@pytest.mark.long
def test_with_their_app_snapshots_and_their_bytes_go(platform: Platform, shop: App, kept: ArtifactStore) -> None:
    restore(platform, shop, taken(platform, kept, shop))
    digest = str(VolumeSnapshot.objects.get().artifact_id)
    asked = platform.call("DELETE", f"/app/{shop.pk}")
    assert (asked.status_code, asked.json()["code"]) == (409, "confirmation_needed")
    assert "the data of data (of unknown size on" in asked.json()["detail"]
    assert "and 1 snapshots for good" in asked.json()["detail"]
    plan = platform.call("DELETE", f"/app/{shop.pk}?dry_run=true").json()["plan"]
    assert {"action": "destroy_snapshots", "count": 1} in plan["actions"]
    assert platform.call("DELETE", f"/app/{shop.pk}?confirm=shop").status_code == 202
    assert jobs(platform) == []  # nobody needs it any more
    platform.settle()
    platform.tick(3)
    assert not App.objects.filter(pk=shop.pk).exists()
    assert not VolumeSnapshot.objects.exists()
    assert not Artifact.objects.filter(pk=digest).exists()
