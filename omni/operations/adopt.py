"""Making a database that belongs to another cluster this cluster's, on purpose.

Owns the refusals that keep it from happening by mistake, and the one transaction in which it happens: identity, an
epoch 1,000 higher, and the event. From then on the other cluster can neither lead nor commit here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.db import Error

from apps.models import App, ConfigRevision
from consensus import fence, gate, takeover
from consensus.gate import Transaction
from omni.kernel import keys
from omni.kernel.context import system
from omni.kernel.seal import SealBroken, unseal
from omni.operations import Refused, aftermath, living
from releases.models import Artifact
from releases.storage import store


@dataclass(frozen=True, slots=True)
class Adopted:
    """`sealed`: apps whose environment was sealed with a master key that is not here; `missing`: artifacts that the
    store here does not have; `lost`: nodes that are not ours → instances to be replaced."""

    theirs: str
    ours: str
    epoch: int
    write_index: int
    sealed: list[str]
    missing: int
    lost: dict[str, int]


def adopt(
    theirs: str, *, give_up_secrets: bool = False, watch_s: float = living.WATCH_S, say: Callable[[str], None]
) -> Adopted:
    """Take over the database of cluster `theirs`. Raises Refused, and has then changed nothing."""
    config = settings.CONFIG
    ours = keys.cluster_id(config)
    if not ours:
        raise Refused(f"{config.state} holds no cluster.secret: start the platform once, or put the secret there")
    epoch, index, owner, holder = _read()
    _check_owner(theirs, owner, ours, _about(epoch, index, holder))
    _nobody_lives(watch_s, say)
    sealed = unreadable()
    if sealed and not give_up_secrets:
        raise Refused(
            f"the environments of {len(sealed)} apps were sealed with another master key ({', '.join(sealed[:5])}): "
            f"put that cluster's master.key as a further line below your own in {config.state / 'master.key'}; or, if "
            "it is lost for good, --give-up-secrets, and set the environment of each of those apps anew"
        )
    new_epoch, index = _take(owner, ours)
    with takeover.leading(new_epoch, "adopted", config.me.id):
        lost = aftermath.declare_lost(config, "cluster_adopt: no node of this configuration")
    return Adopted(owner, ours, new_epoch, fence.write_index() or index, sealed, _missing(), lost)


def _read() -> tuple[int, int, str, str]:
    try:
        return fence.read()
    except Error as error:
        text = " ".join(str(part) for part in error.args)
        raise Refused(
            f"the database cannot be read: {text}. Is it migrated? .venv/bin/python manage.py migrate_all"
        ) from error


def _about(epoch: int, index: int, holder: str) -> str:
    return f"epoch {epoch}, write index {index}, last led by {holder or 'nobody'}, {App.objects.count()} apps"


def _check_owner(theirs: str, owner: str, ours: str, about: str) -> None:
    if not owner:
        raise Refused("the database belongs to nobody yet: just start the platform")
    if takeover.is_unfinished(owner):
        raise Refused("a restore into this database did not finish; repeat it: manage.py cluster_restore PATH")
    if owner == ours:
        raise Refused(f"the database belongs to this cluster already ({ours})")
    if theirs != owner:
        raise Refused(
            f"the database belongs to cluster {owner} ({about}); this is cluster {ours}. Whoever takes it over ends "
            f"the other cluster's use of it for good. If that is what you want: --from {owner}"
        )


def _nobody_lives(watch_s: float, say: Callable[[str], None]) -> None:
    """The other cluster must be stopped, and ours too: its daemon would race for the fence."""
    say(f"looking for {watch_s:g} s whether anybody works on the database")
    alive = living.platform(settings.CONFIG) or living.connected()
    moved = "" if alive else living.moves(watch_s)
    if alive or moved:
        raise Refused(f"{'; '.join(alive[:3]) or moved}. Stop both clusters first, on every host")


def unreadable() -> list[str]:
    """Apps with a configuration that the master key here does not open, by name."""
    found = set()
    for name, env in ConfigRevision.objects.values_list("app__name", "env").iterator():
        try:
            unseal(env)
        except SealBroken:
            found.add(name)
    return sorted(found)


def _missing() -> int:
    """Artifacts of the other cluster that have to be brought here."""
    digests = Artifact.objects.order_by("sha256").values_list("sha256", flat=True)
    return sum(not store().exists(digest) for digest in digests.iterator())


def _take(theirs: str, ours: str) -> tuple[int, int]:
    """Claim the fence as their next leader would, which ends whoever still leads; then make it ours."""
    config = settings.CONFIG
    member = config.me.id
    try:
        claim = fence.claim(theirs, member)
    except fence.ClaimLost as lost:
        raise Refused("the other cluster has just elected a leader: stop it first") from lost
    epoch = max(claim.epoch - 1, aftermath.highest_epoch(config)) + takeover.EPOCH_JUMP

    def verb(tx: Transaction) -> None:
        takeover.hand_over(theirs=theirs, epoch=claim.epoch, ours=ours, to_epoch=epoch)
        change = {"cluster_id": [theirs, ours], "epoch": [claim.epoch - 1, epoch]}
        tx.record("cluster.adopted", "platform", 0, change=change)
        aftermath.expect_reports(tx)

    try:
        with takeover.leading(epoch, claim.claim_id, member):
            _, index = gate.run(verb, actor=system("operator"), cause="cluster_adopt")
    except takeover.FenceMoved as moved:
        raise Refused("the other cluster has just elected a leader: stop it first") from moved
    return epoch, index
