"""One run: clients, faults, rest, verdict. The same for the test of three minutes and the bench of hours.

Owns the order of things and the report. What clients do, what breaks and what is right is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import history
from tests.cluster.checker import Case, check, report
from tests.cluster.coverage import Reached, reached
from tests.cluster.fault_driver import Driver, Played
from tests.cluster.history import Op
from tests.cluster.lab import Lab, settle
from tests.cluster.violations import Violation
from tests.cluster.workload import Workload
from tests.running_platform import EXAMPLES, Api, archive, wait_for

_SETTLED_S = 90.0
Say = Callable[[str], None]


@dataclass
class Outcome:
    """What a run showed. `void`: rare states that it did not reach; then it proves nothing."""

    seed: int
    ops: list[Op]
    violations: list[Violation]
    reached: Reached
    played: list[Played] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    settled_s: float = 0.0

    def __str__(self) -> str:
        faults = ", ".join(f"{count} x {name}" for name, count in sorted(Counter(p.name for p in self.played).items()))
        lines = [
            f"seed {self.seed}: {len(self.ops)} operations, {len(self.played)} faults, all ready after "
            f"{self.settled_s:.1f} s",
            str(self.reached),
            f"faults: {faults or 'none'}",
            report(self.violations),
        ]
        return "\n".join([*lines, *(f"VOID, not reached: {what}" for what in self.void)])


def chaos(lab: Lab, seed: int, seconds: float, say: Say = lambda _line: None, **demands: int) -> Outcome:
    """Random faults under load for so long, then rest, then the verdict. `demands`: see `Reached.missing`."""
    work = Workload([node.url for node in lab.nodes], lab.token, seed)
    if lab.shape.services:
        work.scalable.append(deployed(lab, f"web-{seed}"))
    driver = Driver(lab, seed)
    begun = time.monotonic()
    with work:
        driver.run(seconds, lambda what: say(f"{time.monotonic() - begun:6.1f} s  {what}"))
        settled = settle(lab, _SETTLED_S)
        time.sleep(2.0)  # writes on every node, now that all is well
    outcome = judge(lab, work)
    outcome.played, outcome.settled_s = driver.played, settled
    outcome.void = outcome.reached.missing(**demands)
    return outcome


def judge(lab: Lab, work: Workload) -> Outcome:
    """Wait until the instances have settled; then everything that clients were told against everything there is."""
    if lab.shape.services:
        wait_for_rest(lab)
        with contextlib.suppress(AssertionError):  # what never ends is a violation, not a time-out
            wait_for(lambda: processes_settled(lab), "the processes to settle", _SETTLED_S, every_s=0.5)
    evidence = lab.evidence()
    violations = check(Case.of(work.ops, evidence, principal=lab.principal, strict_reads=lab.strict_reads))
    found = reached(work.ops, evidence, [node.log for node in lab.nodes])
    return Outcome(work.seed, work.ops, violations, found)


def deployed(lab: Lab, name: str, instances: int = 2) -> str:
    """An app that really runs, so that instances and their processes can be counted; its name."""
    api = Api(lab.nodes[0].url, lab.token)
    api.create(name, instances=instances, memory_mb=32, description="deployed")
    build = api.built(name, "1", archive(EXAMPLES / "hello"))
    assert build["status"] == "succeeded", build
    api.healthy(name, instances)
    return name


def wait_for_rest(lab: Lab) -> None:
    """Until every deployment has ended and what is wanted runs, and no more. AssertionError says what did not."""
    begun = time.monotonic()
    while left := unsettled(lab):
        if time.monotonic() - begun > _SETTLED_S:
            raise AssertionError(f"after {_SETTLED_S:g} s still not at rest: " + "; ".join(left))
        time.sleep(0.2)


def unsettled(lab: Lab) -> list[str]:
    """Deployments that go on, instances on their way, apps that have other than the wanted number; empty: at rest."""
    rows = lab.database.rows(
        "SELECT 'deployment', id, app_id, kind, status FROM instances_deployment "
        "WHERE status IN ('pending', 'rolling', 'reverting') UNION ALL "
        "SELECT 'instance', id, app_id, desired, status FROM instances_instance "
        "WHERE status IN ('pending', 'placed', 'starting', 'stopping', 'crashed') UNION ALL "
        "SELECT 'app', a.id, a.instances, 'wanted', COUNT(i.id) FROM apps_app a "
        "LEFT JOIN instances_instance i ON i.app_id = a.id AND i.status = 'running' "
        "WHERE a.desired_release IS NOT NULL AND a.desired_state = 'running' "
        "GROUP BY a.id, a.instances HAVING COUNT(i.id) <> a.instances"
    )
    return [" ".join(row) for row in rows]


def processes_settled(lab: Lab) -> bool:
    """Nothing runs that is not wanted: an instance of a node that was lost drains before it stops."""
    rows = lab.database.rows("SELECT id FROM instances_instance WHERE status = 'running'")
    return {int(row[0]) for row in rows} == set(lab.instances())


def keep(lab: Lab, outcome: Outcome, folder: Path) -> Path:
    """The history and the logs of a run that failed, for whoever looks into it."""
    folder.mkdir(parents=True, exist_ok=True)
    history.save(outcome.ops, folder / "history.jsonl")
    (folder / "report.txt").write_text(f"{outcome}\n" + "\n".join(map(str, outcome.played)))
    for node in lab.nodes:
        (folder / f"{node.name}.log").write_text(node.log)
        if node.hits():
            (folder / f"{node.name}.failpoints").write_text("\n".join(node.hits()))
    with (folder / "events.tsv").open("w") as file:
        for row in lab.database.rows("SELECT * FROM kernel_event ORDER BY `key`"):
            file.write("\t".join(row) + "\n")
    return folder
