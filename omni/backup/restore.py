"""Putting an archive back: into an empty database on an empty machine, or in the place of one on purpose.

Owns the order. Everything is checked before anything is changed; from the first change to the last the fence names
nobody's cluster, so that a platform cannot start on half a restore; the last step makes the database ours, raises the
epoch by 1,000 and writes the event, in one transaction.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import Error, connections

from consensus import fence, gate, takeover
from consensus.gate import Transaction
from omni.backup import Refused, artifacts, key_files, target, verify
from omni.backup.archive import Reader
from omni.backup.manifest import Manifest
from omni.kernel import keys
from omni.kernel.context import system
from omni.operations import aftermath, living


@dataclass(frozen=True, slots=True)
class Options:
    """`replace`: the database's rows may go. `from_cluster`: the archive's cluster, when it is to become ours."""

    path: Path
    replace: bool = False
    from_cluster: str = ""
    passphrase: str = ""
    say: Callable[[str], None] = lambda _line: None


@dataclass(frozen=True, slots=True)
class Restored:
    """What there is now. `lost`: nodes that this configuration does not have → instances that will be replaced."""

    manifest: Manifest
    cluster_id: str
    epoch: int
    write_index: int
    keys_written: list[str]
    lost: dict[str, int]


def restore(options: Options) -> Restored:
    """Raises Refused; after the first change its text says that the restore is to be repeated."""
    config = settings.CONFIG
    found, _ = verify.verify(options.path, passphrase=options.passphrase)
    options.say(f"{options.path} is whole: {verify.summary(found)}")
    _make_state_directory()
    _nobody_lives()
    with Reader(options.path) as reader:
        opened = _opened(reader, options)
        ours = _identity(found, key_files.together(config, opened), options)
        target.check_schema(found, replace=options.replace)
        _check_content(options)
        written = key_files.put_back(config, opened)
        mark = takeover.unfinished_mark(found.cluster_id)
        before = _close(mark, found)
        registry = target.bring_schema(found)
        target.empty()
        options.say(f"{artifacts.put_back(reader, found, options.say)} artifacts stored")
        target.load(reader, registry, options.say)
        target.jump_ids(registry)
    target.bring_up_to_date()
    epoch, index, lost = _finish(found, mark, before, ours)
    _forget_raft()
    return Restored(found, ours, epoch, index, written, lost)


def _make_state_directory() -> None:
    """As a first start makes it: commands run with a strict umask, and apps must get through to their homes."""
    state = settings.CONFIG.state
    if not state.is_dir():
        state.mkdir(parents=True)
        state.chmod(0o755)


def _nobody_lives() -> None:
    config = settings.CONFIG
    alive = living.platform(config)
    if not alive:
        alive = [f"{who}" for alias in target.aliases() for who in _connected(alias)]
    if alive:
        raise Refused(f"{'; '.join(alive[:3])}. Stop the platform first, on every host")


def _connected(alias: str) -> list[str]:
    try:
        return living.connected(alias)
    except Error as error:
        raise Refused(f"the database cannot be reached: {' '.join(str(part) for part in error.args)}") from error


def _opened(reader: Reader, options: Options) -> dict[str, str]:
    """The keys in the archive, when they are there and can be opened."""
    if not options.passphrase:
        return {}
    if not reader.manifest.keys_in_archive:
        raise Refused("the archive holds no keys, so there is nothing for a passphrase to open")
    return key_files.unseal(reader.read(key_files.PART), options.passphrase)


def _identity(found: Manifest, known: dict[str, str], options: Options) -> str:
    """Whose the database will be. Raises Refused when the keys that there are do not fit the backup."""
    config = settings.CONFIG
    secret = known.get("cluster.secret", "")
    if not secret:
        ways = "put the files that were kept aside (" + ", ".join(found.keys) + f") into {config.state}, mode 0600"
        if found.keys_in_archive:
            ways = f"give --passphrase-file, or {ways}"
        raise Refused(f"there is no cluster.secret here: {ways}")
    ours = keys.cluster_id_of(secret)
    if found.cluster_id not in (ours, options.from_cluster):
        raise Refused(
            f"the backup is of cluster {found.cluster_id}, and the cluster.secret here makes cluster {ours}. Put that "
            f"cluster's keys into {config.state}, or make its data this cluster's: --from {found.cluster_id}"
        )
    if not key_files.opens_probe(known, found.probe):
        raise Refused(
            "the master key here does not open the secrets in the backup: put that cluster's master.key into "
            f"{config.state} (as a line below your own, if you have one: the first line seals, all lines open)"
        )
    return ours


def _check_content(options: Options) -> None:
    there = target.content()
    if there and not options.replace and not _unfinished():
        raise Refused(
            f"the database is not empty: {there}. Restore into an empty one; or, if all of it may be deleted and "
            "replaced by the backup, repeat with --replace (make a backup of what is there first)"
        )


def _unfinished() -> bool:
    """Whether what is there is no more than an earlier restore that was interrupted."""
    connection = connections["default"]
    return "consensus_fence" in connection.introspection.table_names() and takeover.is_unfinished(fence.read()[2])


def _close(mark: str, found: Manifest) -> int:
    """Nobody may lead from here on; the epoch that all later ones must exceed. A new database gets its tables first."""
    if "consensus_fence" not in connections["default"].introspection.table_names():
        target.bring_schema(found)
    return takeover.close_to_all(mark)


def _finish(found: Manifest, mark: str, before: int, ours: str) -> tuple[int, int, dict[str, int]]:
    config = settings.CONFIG
    epoch = max(found.epoch, before, aftermath.highest_epoch(config)) + takeover.EPOCH_JUMP

    def verb(tx: Transaction) -> None:
        takeover.hand_over(theirs=mark, epoch=before, ours=ours, to_epoch=epoch, write_index=found.write_index)
        backup = {"cluster_id": found.cluster_id, "epoch": found.epoch, "write_index": found.write_index}
        change = {"backup": {**backup, "created_at": found.created_at}, "epoch": [found.epoch, epoch]}
        tx.record("cluster.restored", "platform", 0, change={**change, "cluster_id": ours})
        aftermath.expect_reports(tx)

    with takeover.leading(epoch, secrets.token_hex(8), config.me.id):
        _, index = gate.run(verb, actor=system("operator"), cause="cluster_restore")
        lost = aftermath.declare_lost(config, "cluster_restore: no node of this configuration")
    return epoch, fence.write_index() or index, lost


def _forget_raft() -> None:
    """Raft starts anew with the members of the configuration; its old journal speaks of another history."""
    config = settings.CONFIG
    for member in config.members_here:
        shutil.rmtree(config.node_dir(member) / "raft", ignore_errors=True)
        (config.node_dir(member) / "raft.page").unlink(missing_ok=True)
    (config.state / "run" / "schema").unlink(missing_ok=True)  # the launcher looks at the migrations again
