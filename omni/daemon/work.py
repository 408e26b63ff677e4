"""Which loops the leader runs, and how often.

Owns the list. Each entry is one concern on a thread of its own, so that one that hangs holds up no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from django.conf import settings

from apps import domain_checks
from consensus.impatient import be_impatient
from instances.controller import Controller
from instances.cron import clockwork
from instances.exec.sweep import EVERY_S as EXEC_EVERY_S
from instances.exec.sweep import Sweep
from instances.tasks import runner as task_runner
from instances.telemetry.retention import EVERY_S as TELEMETRY_EVERY_S
from instances.telemetry.retention import Retention
from instances.volumes.snapshots.sweep import EVERY_S as SNAPSHOTS_EVERY_S
from instances.volumes.snapshots.sweep import Sweep as SnapshotSweep
from omni.celery import app as celery
from omni.daemon import event_hooks, platform_parts, retention
from omni.daemon.loops import Loop
from omni.daemon.pulse import Pulse
from omni.kernel import clock
from omni.kernel.tables import TELEMETRY
from releases import copy_keeper
from releases.copies import peers
from releases.relay import Relay, celery_publisher
from services import board, mending, sender, standings, watch
from services import retention as service_retention
from services.registration import Registrar

CONTROLLER_S = 0.2  # between two looks after writes
SILENCE_S = 0.4  # this bounds how late the controller notices that a node is silent
RELAY_S = 0.3
# After a start of the whole platform the agents start too, and on a busy host one may need longer than its lease to be
# heard: what runs there is to be adopted, not replaced. A leader that was there before has no such excuse to wait.
COLD_START_S = 10.0
_began = clock.monotonic()


def leader_loops(pulse: Pulse, settle: Callable[[], None]) -> list[Loop]:
    """New for each leadership: nothing that an earlier one remembered is carried over. `settle` is the alarm's."""
    cold = clock.monotonic() - _began < COLD_START_S
    controller, telemetry = Controller(patience_s=COLD_START_S if cold else 0.0), Retention()
    relay = Relay(celery_publisher(celery))

    def ring() -> float | None:
        relay.tick()
        return RELAY_S if relay.busy else None

    def control() -> float:
        due = controller.step()
        return SILENCE_S if due is None else min(due, SILENCE_S)

    others = peers()
    copies: list[Loop] = []
    if others is not None:
        kept = settings.CONFIG.artifacts
        keeper = copy_keeper.CopyKeeper(others, kept.copies, kept.repair_after_s)
        copies = [Loop("copies", keeper.tick, min(copy_keeper.EVERY_S, kept.repair_after_s / 2))]
    return [
        *copies,
        Loop("controller", control, CONTROLLER_S, pulse),
        Loop("cron", clockwork.step, clockwork.EVERY_S, pulse),
        Loop("tasks", task_runner.Runner().step, task_runner.EVERY_S, pulse),
        Loop("exec", Sweep().tick, EXEC_EVERY_S, pulse),
        Loop("snapshots", SnapshotSweep().tick, SNAPSHOTS_EVERY_S, pulse),
        Loop("relay", ring, RELAY_S, pulse),
        *_service_loops(pulse, settle),
        Loop("domains", domain_checks.DomainChecks().step, domain_checks.EVERY_S, pulse),
        Loop("webhooks", event_hooks.EventHooks().tick, event_hooks.EVERY_S, pulse),
        Loop("retention", retention.tick, retention.EVERY_S),
        Loop("telemetry-retention", telemetry.tick, TELEMETRY_EVERY_S),
    ]


def _service_loops(pulse: Pulse, settle: Callable[[], None]) -> list[Loop]:
    """Watching services, mending them, telling of their alerts: one hanging channel holds up no other."""
    standings.forget()
    watching = watch.Watch(board.Board(board.directory()), platform_parts.observe, Registrar().register, settle)
    patience = threading.local()

    def look() -> float:
        """It watches on while the database is away, so it must soon know that it is."""
        if not hasattr(patience, "limited"):
            be_impatient()
            be_impatient(TELEMETRY)
            patience.limited = True
        return watching.tick()

    return [
        Loop("services", look, watch.LONGEST_S),
        Loop("remedies", mending.tick, mending.EVERY_S, pulse),
        Loop("alert-webhooks", sender.Sender("webhook").tick, sender.EVERY_S, pulse),
        Loop("alert-mails", sender.Sender("mail").tick, sender.EVERY_S, pulse),
        Loop("service-retention", service_retention.tick, service_retention.EVERY_S),
    ]
