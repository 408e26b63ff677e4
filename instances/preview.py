"""What a wish would lead to: the dry run's plan, played on paper to its end.

Owns the walk from an app as it is (inside a rehearsal) to its settled state, supposing that all instances get healthy.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from apps import processes
from apps.models import App
from consensus.gate import Transaction
from instances import observe
from instances.observe import Seen
from instances.placement import Pool
from instances.plan import actions as act
from instances.plan.world import World

MOST_ROUNDS = 400
MOST_ACTIONS = 500
_SHOWN = (act.Prepare, act.Place, act.Assign, act.Stop, act.Bake, act.Promote, act.Shift)


def plan_now(tx: Transaction, app: App) -> dict[str, Any]:
    """The actions that would follow, in order, with nodes and reasons. Call it after the verb, in the rehearsal."""
    found = observe.observe([app.pk], observe.node_views())
    if not found:
        return {"actions": [], "settles": True}
    if found[0].desired.deployment is None:
        return {"actions": [], "settles": True, "pending": [], "placement": room(found[0], app)}
    return play(found[0], tx.at)


def room(seen: Seen, app: App) -> dict[str, Any]:
    """Where instances of an app with nothing to deploy yet would go; `refused` is the first that fits nowhere."""
    pool, chosen = Pool(seen.observed.nodes), list[dict[str, Any]]()
    for name, count in processes.wanted(app.instances, app.process_counts, app.process_types).items():
        memory_mb = processes.memory_of(app.process_settings, name, app.memory_mb)
        cpu = processes.cpu_of(app.process_settings, name, app.cpu)
        need, own = replace(seen.desired.wants, memory_mb=memory_mb, cpu=cpu), dict[int, int]()
        for slot in range(min(count, MOST_ACTIONS)):
            choice = pool.choose(need, own)
            if choice.node is None:
                return {"instances": chosen, "refused": choice.to_json()}
            pool.take(choice.node.id, memory_mb, cpu)
            own[choice.node.id] = own.get(choice.node.id, 0) + 1
            chosen.append({"process_type": name, "slot": slot, "node": choice.node.name, "reason": choice.reason})
    return {"instances": chosen, "refused": None}


def play(seen: Seen, now: dt.datetime) -> dict[str, Any]:
    """`settles` is False when something stays undone, for example because no node has room."""
    world = world_of(seen, now)
    real = frozenset(world.instances)
    shown: list[dict[str, Any]] = []
    refused: dict[tuple[str, int], dict[str, Any]] = {}
    for _ in range(MOST_ROUNDS):
        made = world.plan()
        if any(isinstance(action, (act.FailDeployment, act.GiveUp, act.Purge)) for action in made.actions):
            break
        shown += [_show(world, real, action) for action in made.actions if isinstance(action, _SHOWN)]
        refused |= _refused(world, made)
        before = dict(world.instances)
        changed = made.changes(world.status)
        world.apply(made)
        for instance_id in list(world.instances):
            world.agent_acts(instance_id)
        if len(shown) >= MOST_ACTIONS:
            break
        if changed or before != world.instances:
            continue
        if world.promote_by_hand():
            shown.append({"action": "await_promotion", "why": "the new release takes over once somebody promotes it"})
        elif made.wait_until is None:
            break
        else:
            world.now = max(world.now, made.wait_until)
    waiting = [row for row in world.wanted() if row.status == "pending"]
    return {
        "actions": shown[:MOST_ACTIONS],
        "settles": not waiting and len(shown) < MOST_ACTIONS,
        "pending": [
            {
                "process_type": row.process_type,
                "slot": row.slot,
                "reason": row.reason,
                "remedy": refused.get((row.process_type, row.slot), {}).get("remedy", []),
                "verdicts": refused.get((row.process_type, row.slot), {}).get("verdicts", []),
            }
            for row in waiting
        ],
    }


def _refused(world: World, made: act.Plan) -> dict[tuple[str, int], dict[str, Any]]:
    """By process type and slot, of those that fit nowhere: what each node says, and the smallest change that helps."""
    found = {}
    for action in made.actions:
        if isinstance(action, (act.Place, act.Explain)) and action.choice.node is None:
            of = action if isinstance(action, act.Place) else world.instances[action.instance]
            found[of.process_type, of.slot] = action.choice.to_json()
    return found


def world_of(seen: Seen, now: dt.datetime) -> World:
    """The world starts where the app stands; other apps' instances are in what the nodes have allocated."""
    live = {row.node_id: 0 for row in seen.observed.instances}
    for row in seen.observed.instances:
        if row.live:
            live[row.node_id] = live.get(row.node_id, 0) + row.memory_mb
    world = World(
        count=seen.desired.instances,
        state=seen.desired.state,
        singleton=seen.desired.singleton,
        nodes=seen.observed.nodes,
        now=now,
        deployment=seen.desired.deployment,
        status=seen.observed.status,
        wants=seen.desired.wants,
        others=dict(seen.desired.others),
        allocated={node.id: node.memory_used_mb - live.get(node.id, 0) for node in seen.observed.nodes},
    )
    world.instances = {row.id: row for row in seen.observed.instances}
    return world


def _show(world: World, real: Collection[int], action: act.Action) -> dict[str, Any]:
    shown = act.to_json(action)
    if isinstance(action, act.Stop):
        row = world.instances[action.instance]
        shown |= {"node": row.node_name or None, "process_type": row.process_type}
        if row.id not in real:  # made on paper
            shown["instance_id"] = None
    return shown
