"""Reading an archive through: every part is there, whole, and what the manifest says.

Owns the verdict on an archive alone. Opens no database, needs no running platform.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from omni.backup import key_files
from omni.backup.archive import Reader
from omni.backup.manifest import Manifest


def verify(path: Path, *, cluster_secret: str = "", passphrase: str = "") -> tuple[Manifest, list[str]]:
    """The manifest, and remarks for people. Raises Refused for an archive that must not be restored.

    With the cluster's secret it is also proven that this cluster made it; with the passphrase, that the keys open.
    """
    with Reader(path) as reader:
        found = reader.manifest
        for table in found.tables:
            reader.check(table.part, table.sha256, table.size)
        for artifact in found.artifacts:
            if artifact.held:
                reader.check(artifact.part, artifact.sha256, artifact.size)
        remarks = _about_keys(reader, cluster_secret, passphrase)
    left_out = sum(1 for artifact in found.artifacts if not artifact.held)
    if left_out:
        remarks.append(f"{left_out} artifacts were damaged when the backup was made and are not in it")
    return found, remarks


def _about_keys(reader: Reader, cluster_secret: str, passphrase: str) -> list[str]:
    remarks = []
    found = reader.manifest
    if found.keys_in_archive and passphrase:
        opened = key_files.unseal(reader.read(key_files.PART), passphrase)
        cluster_secret = cluster_secret or opened.get("cluster.secret", "")
        remarks.append(f"the passphrase opens its keys: {', '.join(sorted(opened))}")
    elif found.keys_in_archive:
        remarks.append("its keys were not opened: no --passphrase-file was given")
    else:
        remarks.append(f"it holds no keys: {', '.join(found.keys)} must come from elsewhere")
    if not cluster_secret:
        remarks.append("whose it is was not proven: there is no cluster secret here to prove it by")
    elif reader.authentic(cluster_secret):
        remarks.append(f"made by cluster {found.cluster_id}, and changed by nobody since")
    else:
        remarks.append(f"not signed with this machine's cluster secret: it is of another cluster ({found.cluster_id})")
    return remarks


def summary(found: Manifest) -> str:
    """One line of what is in it."""
    held = sum(1 for artifact in found.artifacts if artifact.held)
    return (
        f"cluster {found.cluster_id} at write index {found.write_index}, epoch {found.epoch}, {found.created_at}: "
        f"{found.rows:,} rows, {held} artifacts ({found.artifact_bytes / 1e6:.1f} MB)"
        f"{'' if found.telemetry else ', without telemetry'}{', with keys' if found.keys_in_archive else ''}"
    )


def report(path: Path, cluster_secret: str, passphrase: str, say: Callable[[str], None]) -> None:
    found, remarks = verify(path, cluster_secret=cluster_secret, passphrase=passphrase)
    say(f"{path} is whole: {summary(found)}")
    for remark in remarks:
        say(f"  {remark}")
