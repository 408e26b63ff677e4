"""What is backed up comes back: every row, every byte, and who owns it, whichever database it goes to."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni.testing.places import Place

pytestmark = pytest.mark.slow

# A restore changes these on purpose: it expects every agent to report anew, and declares nodes lost that it lacks.
CHANGED = {
    "instances.instance": {"observed_seq", "observed_incarnation", "revision", "status", "health", "detail", "history",
                           "finished_at"},
    "instances.node": {"incarnation", "revision", "status", "status_since"},
}  # fmt: skip


def rows_of(archive: Path) -> dict[str, list[list[Any]]]:
    """Model → rows, without what a restore changes."""
    found = {}
    with zipfile.ZipFile(archive) as file:
        for table in json.loads(file.read("manifest.json"))["tables"]:
            kept = [i for i, name in enumerate(table["columns"]) if name not in CHANGED.get(table["model"], ())]
            lines = file.read(table["part"]).splitlines()
            found[table["model"]] = [[json.loads(line)[i] for i in kept] for line in lines]
    return found


@pytest.mark.parametrize(
    ("source", "goal"),
    [
        ("sqlite", "mariadb"),
        pytest.param("sqlite", "sqlite", marks=pytest.mark.long),
        pytest.param("mariadb", "sqlite", marks=pytest.mark.long),
    ],
)
def test_every_row_and_digest_comes_back(place: Callable[..., Place], source: str, goal: str) -> None:
    first, second = place("first", source), place("second", goal)
    first.seed()
    backup, again = first.folder / "backup", first.folder / "again"
    first.manage("cluster_backup", backup, "--passphrase-file", first.passphrase)
    said = second.manage("cluster_restore", backup, "--passphrase-file", first.passphrase)
    assert "Every row and every artifact reads as the backup does" in said

    second.manage("cluster_backup", again, "--passphrase-file", first.passphrase)
    before, after = rows_of(backup), rows_of(again)
    events = before.pop("kernel.event")
    assert after.pop("kernel.event")[: len(events)] == events
    assert after == before
    assert {p.name: p.read_bytes() for p in (first.state / "artifacts").glob("*/*")} == {
        p.name: p.read_bytes() for p in (second.state / "artifacts").glob("*/*")
    }
    for name in ("cluster.secret", "master.key", "django.key", "admin.token"):
        assert (second.state / name).read_text() == (first.state / name).read_text()
        assert (second.state / name).stat().st_mode & 0o777 == 0o600


def test_a_restore_raises_the_epoch_says_so_and_gives_new_ids(seeded: Place, place: Callable[..., Place]) -> None:
    goal = place("goal")
    said = goal.manage("cluster_restore", seeded.folder / "backup", "--passphrase-file", seeded.passphrase)
    cluster_id, before, index = seeded.fence()
    assert goal.fence()[:2] == (cluster_id, before + 1_000)
    events = goal.sql('SELECT "key", kind, epoch FROM kernel_event ORDER BY "key"')
    kinds = [(kind, epoch) for key, kind, epoch in events if int(key) >= (index + 1) * 4096]
    assert kinds[0] == ("cluster.restored", str(before + 1_000))
    assert ("node.lost", str(before + 1_000)) in kinds
    assert "127.0.0.1-9999 is not in this configuration: 2 instances" in said
    statuses = dict(goal.sql("SELECT n.name || ' ' || i.status, COUNT(*) FROM instances_instance i "
                             "JOIN instances_node n ON n.id = i.node_id GROUP BY 1"))  # fmt: skip
    assert statuses == {"127.0.0.1-8000 running": "3", "127.0.0.1-9999 lost": "2"}
    ((last,),) = goal.sql("SELECT seq FROM sqlite_sequence WHERE name = 'instances_instance'")
    assert int(last) > 1_000_000


def test_a_backup_holds_no_secret_in_clear(seeded: Place, tmp_path: Path) -> None:
    archive = seeded.folder / "backup"
    assert archive.stat().st_mode & 0o777 == 0o600
    secrets = [(seeded.state / name).read_text().strip() for name in ("cluster.secret", "master.key", "admin.token")]
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            content = file.read(name).decode(errors="replace")
            assert not any(secret in content for secret in (*secrets, "secret of 1")), name


def test_a_backup_while_writes_go_on_is_of_one_moment(copied: Place) -> None:
    writer = copied.start("-m", "omni.backup.testbed", "write", "--seconds", "6")
    archives = [copied.folder / f"during-{number}" for number in range(3)]
    for archive in archives:
        copied.manage("cluster_backup", archive)
    output, _ = writer.communicate(timeout=60)
    assert int(output) > 20, output
    seen = []
    for archive in archives:
        with zipfile.ZipFile(archive) as file:
            index = json.loads(file.read("manifest.json"))["write_index"]
        rows = rows_of(archive)
        events = [row for row in rows["kernel.event"] if "org.created" in row]
        assert index == max(int(value) // 4096 for row in rows["kernel.event"] for value in row if _is_key(value))
        assert len(events) == len(rows["accounts.org"])  # the first org and each of the writer's
        seen.append(index)
    assert seen == sorted(seen)
    assert seen[0] < seen[-1], "the writer wrote nothing while backups were made"


def _is_key(value: Any) -> bool:
    return isinstance(value, int) and value >= 4096


@pytest.mark.long
def test_memory_does_not_grow_with_the_log(place: Callable[..., Place]) -> None:
    big = place("big")
    big.seed(apps=2, lines=150_000)
    # Not ru_maxrss: a child begins with its parent's, and the parent is a whole test run.
    peak = "import re,sys; from django.core.management import execute_from_command_line as run; "
    peak += "run(['manage.py','cluster_backup',sys.argv[1]]); "
    peak += "print('peak', int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) >> 10)"
    big.variables["DJANGO_SETTINGS_MODULE"] = "omni.settings"
    code, output = big.run("-c", peak, str(big.folder / "backup"))
    assert code == 0, output
    assert int(output.rsplit("peak ", 1)[1]) < 200


@pytest.mark.long
def test_telemetry_can_be_left_out(copied: Place, place: Callable[..., Place]) -> None:
    archive, goal = copied.folder / "lean", place("goal")
    copied.manage("cluster_backup", archive, "--without-telemetry", "--passphrase-file", copied.passphrase)
    assert "instances.logline" not in rows_of(archive)
    goal.manage("cluster_restore", archive, "--passphrase-file", copied.passphrase)
    assert goal.sql("SELECT COUNT(*) FROM apps_app") == [("5",)]


def test_an_interrupted_restore_leaves_a_database_that_nobody_can_lead_on(
    seeded: Place, place: Callable[..., Place]
) -> None:
    goal = place("goal")
    points = goal.folder / "points"
    points.mkdir()
    (points / "before_fence").write_text("kill")
    goal.variables["OMNI_FAILPOINTS"] = str(points)
    arguments = ("cluster_restore", seeded.folder / "backup", "--passphrase-file", seeded.passphrase)
    code, output = goal.run("manage.py", *map(str, arguments))
    assert code == -9, output
    assert goal.fence()[0].startswith("restoring ")
    assert "did not finish" in goal.refused("cluster_backup", goal.folder / "half")
    claim = "import django; django.setup(); from consensus import fence; fence.claim('x', 'm')"
    goal.variables["DJANGO_SETTINGS_MODULE"] = "omni.settings"
    code, output = goal.run("-c", claim)
    assert code == 1
    assert "did not finish" in output
    assert "Every row" in goal.manage(*arguments)
    assert goal.fence()[0] == seeded.fence()[0]
