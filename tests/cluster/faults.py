"""What breaks: each fault is a name, how it begins, and how it ends. Chosen by a seed, so that a run can be replayed.

Owns the faults; `fault_driver` plays them. Knows the lab; knows no client and judges nothing.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.cluster import network
from tests.cluster.lab import Lab
from tests.cluster.nodes import LabNode

End = Callable[[], None]
Begin = Callable[[Lab, random.Random], End]


@dataclass(frozen=True, slots=True)
class Fault:
    """`needs`: what the lab must have for it. `rare`: it reaches a state that proves much."""

    name: str
    begin: Begin
    lasts_s: float = 5.0
    needs: str = ""
    rare: bool = False


FAULTS: dict[str, Fault] = {}


def fault(lasts_s: float = 5.0, *, needs: str = "", rare: bool = False) -> Callable[[Begin], Begin]:
    def register(begin: Begin) -> Begin:
        FAULTS[begin.__name__] = Fault(begin.__name__, begin, lasts_s, needs, rare)
        return begin

    return register


def _leader(lab: Lab) -> LabNode:
    return lab.leader() or lab.nodes[0]


def _follower(lab: Lab, chance: random.Random) -> LabNode:
    leader = _leader(lab)
    return chance.choice([node for node in lab.nodes if node is not leader])


def _peers(lab: Lab, node: LabNode) -> list[str]:
    return [other.host.address for other in lab.nodes if other is not node]


def _restart(node: LabNode) -> None:
    if not node.alive:
        node.start()


# -- processes


@fault(rare=True)
def kill_leader(lab: Lab, chance: random.Random) -> End:
    leader = _leader(lab)
    leader.kill()
    return leader.start


@fault()
def kill_follower(lab: Lab, chance: random.Random) -> End:
    node = _follower(lab, chance)
    node.kill()
    return node.start


@fault(2.0)
def kill_all(lab: Lab, chance: random.Random) -> End:
    for node in lab.nodes:
        node.kill()

    def end() -> None:
        for node in lab.nodes:
            node.start()

    return end


@fault(4.0)
def freeze_leader(lab: Lab, chance: random.Random) -> End:
    leader = _leader(lab)
    leader.freeze()
    return leader.thaw


@fault(4.0)
def freeze_follower(lab: Lab, chance: random.Random) -> End:
    node = _follower(lab, chance)
    node.freeze()
    return node.thaw


def _at_point(lab: Lab, point: str, action: str, within_s: float = 5.0) -> LabNode:
    """Arm a failpoint on the leader and wait until some write has walked into it."""
    leader = _leader(lab)
    before = len(leader.hits(point))
    leader.arm(point, action)
    deadline = time.monotonic() + within_s
    while len(leader.hits(point)) == before and time.monotonic() < deadline:
        time.sleep(0.005)
    leader.disarm()
    leader.frozen = action == "stop" and len(leader.hits(point)) > before
    return leader


@fault(6.0, rare=True)
def freeze_leader_before_the_fence(lab: Lab, chance: random.Random) -> End:
    """It wakes as soon as another one leads: a moment later the database would have ended its transaction by itself."""
    leader = _at_point(lab, "before_fence", "stop")
    epoch = lab.epoch()
    deadline = time.monotonic() + 1.5
    while lab.epoch() == epoch and time.monotonic() < deadline:
        time.sleep(0.005)
    leader.thaw()
    return leader.thaw


@fault(5.0, rare=True)
def freeze_leader_in_its_transaction(lab: Lab, chance: random.Random) -> End:
    return _at_point(lab, "fenced_before_commit", "stop").thaw


@fault(4.0, rare=True)
def kill_leader_after_commit(lab: Lab, chance: random.Random) -> End:
    """Committed, and nobody was told."""
    leader = _at_point(lab, "after_commit_before_reply", "killnode")
    return lambda: _restart(leader)


@fault(4.0)
def kill_follower_while_forwarding(lab: Lab, chance: random.Random) -> End:
    node = _follower(lab, chance)
    node.arm("forward_sent_before_reply", "killnode")

    def end() -> None:
        node.disarm()
        _restart(node)

    return end


@fault(5.0)
def kill_new_leader_before_it_serves(lab: Lab, chance: random.Random) -> End:
    leader = _leader(lab)
    others = [node for node in lab.nodes if node is not leader]
    for node in others:
        node.arm("claimed_before_serve", "killnode")
    leader.freeze()

    def end() -> None:
        leader.thaw()
        for node in others:
            node.disarm()
            _restart(node)

    return end


@fault(3.0)
def hold_the_controller(lab: Lab, chance: random.Random) -> End:
    """The controller's next plan is carried out two seconds later, when somebody else leads."""
    leader = _leader(lab)
    leader.arm("planned_before_write", "sleep 2")
    leader.freeze()
    time.sleep(1.5)
    leader.thaw()
    return leader.disarm


@fault(3.0)
def lose_a_journal(lab: Lab, chance: random.Random) -> End:
    """A follower comes back with nothing of Raft's on its disk."""
    node = _follower(lab, chance)
    node.kill()
    shutil.rmtree(node.folder / "raft", ignore_errors=True)
    return node.start


@fault(3.0)
def damage_a_journal(lab: Lab, chance: random.Random) -> End:
    """A follower comes back with a torn tail, or with bytes that nobody wrote, in one of Raft's files."""
    node = _follower(lab, chance)
    node.kill()
    files = [path for path in sorted((node.folder / "raft").glob("*")) if path.is_file() and path.stat().st_size > 16]
    if files:
        path = chance.choice(files)
        data = bytearray(path.read_bytes())
        place = chance.randrange(len(data))
        if chance.random() < 0.5:
            del data[place:]
        else:
            data[place : place + 8] = chance.randbytes(8)
        path.write_bytes(data)
    return node.start


@fault(2.0)
def lose_every_journal(lab: Lab, chance: random.Random) -> End:
    """Nobody remembers a term: the epoch in the database is what still orders the leaders."""
    for node in lab.nodes:
        node.kill()
        shutil.rmtree(node.folder / "raft", ignore_errors=True)

    def end() -> None:
        for node in lab.nodes:
            node.start()

    return end


@fault(1.0)
def hand_over(lab: Lab, chance: random.Random) -> End:
    """No fault at all: leadership is asked to move."""
    lab.post(_leader(lab), "/cluster/transfer", {}, 5.0)
    return lambda: None


# -- cables


@fault(6.0, needs="cables", rare=True)
def cut_leader_from_peers(lab: Lab, chance: random.Random) -> End:
    """The database still hears it."""
    leader = _leader(lab)
    network.cut(leader.host, _peers(lab, leader))
    return lambda: network.heal(leader.host)


@fault(6.0, needs="cables", rare=True)
def cut_minority(lab: Lab, chance: random.Random) -> End:
    node = _follower(lab, chance)
    network.cut(node.host, _peers(lab, node))
    return lambda: network.heal(node.host)


@fault(6.0, needs="cables")
def cut_leader_from_everything(lab: Lab, chance: random.Random) -> End:
    leader = _leader(lab)
    network.cut(leader.host, [*_peers(lab, leader), *lab.database.addresses])
    return lambda: network.heal(leader.host)


@fault(6.0, needs="cables")
def cut_leader_from_database(lab: Lab, chance: random.Random) -> End:
    leader = _leader(lab)
    network.cut(leader.host, lab.database.addresses)
    return lambda: network.heal(leader.host)


@fault(needs="cables")
def leader_hears_nobody(lab: Lab, chance: random.Random) -> End:
    leader = _leader(lab)
    network.cut(leader.host, _peers(lab, leader), leaving=False)
    return lambda: network.heal(leader.host)


@fault(needs="cables")
def nobody_hears_the_leader(lab: Lab, chance: random.Random) -> End:
    leader = _leader(lab)
    network.cut(leader.host, _peers(lab, leader), arriving=False)
    return lambda: network.heal(leader.host)


@fault(6.0, needs="cables")
def bridge(lab: Lab, chance: random.Random) -> End:
    """Two members that cannot hear each other, and one that hears both."""
    left, right = chance.sample(lab.nodes, 2)
    network.cut(left.host, [right.host.address])
    return lambda: network.heal(left.host)


@fault(6.0, needs="cables")
def lose_packets(lab: Lab, chance: random.Random) -> End:
    node = chance.choice(lab.nodes)
    network.lose(node.host, 30, but=[lab.hosts.here])
    return lambda: network.heal(node.host)


@fault(6.0, needs="cables")
def slow_cable(lab: Lab, chance: random.Random) -> End:
    node = chance.choice(lab.nodes)
    network.slow(node.host)
    return lambda: network.heal(node.host)


# -- what everybody needs


@fault(3.0, needs="cables")
def kill_database(lab: Lab, chance: random.Random) -> End:
    lab.database.stop(kill=True)
    return lab.database.heal  # type: ignore[no-any-return]


@fault(3.0, needs="cables")
def freeze_database(lab: Lab, chance: random.Random) -> End:
    lab.database.freeze()
    return lab.database.heal  # type: ignore[no-any-return]


@fault(4.0, needs="broker")
def kill_broker(lab: Lab, chance: random.Random) -> End:
    assert lab.broker is not None
    lab.broker.kill()
    return lab.broker.heal


@fault(4.0, needs="broker")
def freeze_broker(lab: Lab, chance: random.Random) -> End:
    assert lab.broker is not None
    lab.broker.freeze()
    return lab.broker.heal


@fault(5.0, needs="clocks")
def jump_clock(lab: Lab, chance: random.Random) -> End:
    node = chance.choice(lab.nodes)
    lab.jump(node, chance.choice([-3600.0, 3600.0, 40.0, -40.0]))
    return lambda: lab.jump(node, 0.0)


@fault(5.0, needs="small_disks")
def fill_disk(lab: Lab, chance: random.Random) -> End:
    node = chance.choice(lab.nodes)
    ballast = node.state / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
    return lambda: ballast.unlink(missing_ok=True)
