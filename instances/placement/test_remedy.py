"""What placement suggests when nothing fits is right, and nothing smaller would do: against brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from instances.placement import Change, Constraint, Need, NodeView, choose
from instances.placement.remedy import MIN_CPU, MIN_MEMORY_MB

CONSTRAINTS = [Constraint("zone", "=", "a"), Constraint("disk", "exists"), Constraint("zone", "!=", "c")]

NODES = st.lists(
    st.builds(
        NodeView,
        id=st.integers(1, 9),
        name=st.sampled_from("abcdef"),
        status=st.sampled_from(["ready", "ready", "lost", "draining", "joining"]),
        memory_mb=st.integers(0, 60),
        cpu_count=st.integers(0, 2),
        memory_used_mb=st.integers(0, 60),
        runtimes=st.sampled_from([("process",), ("docker",), ("process", "docker")]),
        labels=st.dictionaries(st.sampled_from(["zone", "disk"]), st.sampled_from("ac"), max_size=2),
        leftovers=st.sampled_from([0, 0, 2]),
    ),
    min_size=1,
    max_size=4,
    unique_by=(lambda view: view.id, lambda view: view.name),
)
NEEDS = st.builds(
    Need,
    memory_mb=st.integers(MIN_MEMORY_MB, 50),
    cpu=st.sampled_from([0.5, 1.0, 3.0]),
    runtime=st.sampled_from(["process", "docker"]),
    constraints=st.lists(st.sampled_from(CONSTRAINTS), max_size=3, unique=True).map(tuple),
    cpu_overcommit=st.just(1.0),
    anti_affinity=st.sampled_from(["preferred", "required"]),
)
OWN = st.dictionaries(st.integers(1, 9), st.integers(0, 2), max_size=4)


def apply(change: Change, node: NodeView, need: Need, own: dict[int, int]) -> tuple[NodeView, Need, dict[int, int]]:
    """One change carried out, as its reader would understand it."""
    free = node.memory_mb - node.memory_used_mb
    amount = int(change.amount)
    if change.kind in ("activate_node", "bring_node_back", "wait_for_stops"):
        leftovers = node.leftovers if change.kind == "activate_node" else 0
        return replace(node, status="ready", leftovers=leftovers), need, own
    if change.kind == "add_runtime":
        return replace(node, runtimes=(*node.runtimes, need.runtime)), need, own
    if change.kind == "drop_constraint":
        failing = next(c for c in need.constraints if not c.holds(node.labels))
        return node, replace(need, constraints=tuple(c for c in need.constraints if c != failing)), own
    if change.kind == "allow_neighbours":
        return node, replace(need, anti_affinity="preferred"), own
    if change.kind == "lower_memory":
        return node, replace(need, memory_mb=need.memory_mb - amount), own
    if change.kind == "free_memory":
        return replace(node, memory_mb=node.memory_used_mb + free + amount), need, own
    if change.kind == "lower_cpu":
        return node, replace(need, cpu=need.cpu - change.amount), own
    assert change.kind == "free_cpu"
    return replace(node, cpu_count=node.cpu_count + int(-(-change.amount // 1))), need, own


def fits(node: NodeView, need: Need, own: dict[int, int]) -> bool:
    """The rule itself, written a second time and as plainly as possible."""
    return (
        node.status == "ready"
        and not node.leftovers
        and need.runtime in node.runtimes
        and all(c.holds(node.labels) for c in need.constraints)
        and node.memory_mb - node.memory_used_mb >= need.memory_mb
        and node.cpu_count * need.cpu_overcommit - node.cpu_used >= need.cpu
        and not (need.anti_affinity == "required" and own.get(node.id, 0))
    )


def fewest_relaxations(node: NodeView, need: Need, own: dict[int, int]) -> int:
    """How many of the single things in the way have to go, by trying every subset of them."""
    loose = [
        lambda n, w, o: (replace(n, status="ready"), w, o),
        lambda n, w, o: (replace(n, leftovers=0), w, o),
        lambda n, w, o: (replace(n, runtimes=("process", "docker")), w, o),
        lambda n, w, o: (n, replace(w, anti_affinity="preferred"), o),
        lambda n, w, o: (replace(n, memory_mb=10_000), w, o),
        lambda n, w, o: (replace(n, cpu_count=100), w, o),
        *[
            (lambda gone: lambda n, w, o: (n, replace(w, constraints=tuple(c for c in w.constraints if c != gone)), o))(
                c
            )
            for c in need.constraints
        ],
    ]
    for size in range(len(loose) + 1):
        for chosen in combinations(loose, size):
            changed = (node, need, own)
            for relax in chosen:
                changed = relax(*changed)
            if fits(*changed):
                return size
    raise AssertionError("nothing helps")


@given(NODES, NEEDS, OWN)
def test_the_verdict_agrees_with_brute_force(nodes, need, own):
    choice = choose(nodes, need, own)
    assert (choice.node is not None) == any(fits(node, need, own) for node in nodes)
    assert {v.node: v.fits for v in choice.verdicts} == {node.name: fits(node, need, own) for node in nodes}
    assert bool(choice.remedy) == (choice.node is None)


@given(NODES, NEEDS, OWN)
def test_the_suggested_change_makes_it_fit_and_fewer_changes_would_not(nodes, need, own):
    choice = choose(nodes, need, own)
    if choice.node is not None:
        return
    names = {change.node for change in choice.remedy}
    assert len(names) == 1, "all changes belong to one node"
    node = next(node for node in nodes if node.name in names)
    changed = (node, need, dict(own))
    for change in choice.remedy:
        changed = apply(change, *changed)
    assert fits(*changed)
    # a lost node's leftovers end with its return: one change, where brute force counts two
    merged = [replace(n, leftovers=0) if n.status in ("lost", "joining") else n for n in nodes]
    assert len(choice.remedy) == min(fewest_relaxations(n, need, own) for n in merged)


@given(NODES, NEEDS, OWN)
def test_no_smaller_amount_would_do(nodes, need, own):
    """The amounts are the least: one megabyte less, and it does not fit."""
    choice = choose(nodes, need, own)
    for short in (change for change in choice.remedy if change.kind in ("lower_memory", "free_memory")):
        node = next(node for node in nodes if node.name == short.node)
        changed = (node, need, dict(own))
        for change in choice.remedy:
            changed = apply(replace(change, amount=change.amount - 1) if change is short else change, *changed)
        assert not fits(*changed)
    for change in choice.remedy:
        if change.kind == "lower_memory":
            assert need.memory_mb - change.amount >= MIN_MEMORY_MB
        if change.kind == "lower_cpu":
            assert need.cpu - change.amount >= MIN_CPU


def test_no_node_at_all_asks_for_one():
    choice = choose([], Need(100, 1.0), {})
    assert [change.text for change in choice.remedy] == ["add a node with 100 MB of free memory"]


def test_what_the_owner_can_do_comes_before_what_an_operator_has_to():
    small = NodeView(1, "small", "ready", 64, 4)
    away = NodeView(2, "away", "draining", 4096, 4)
    choice = choose([small, away], Need(100, 0.5), {})
    assert [change.text for change in choice.remedy] == ["lower memory_mb from 100 to 64, or free 36 MB on small"]


def test_an_app_with_volumes_waits_for_their_node_whatever_else_is_free() -> None:
    free = NodeView(1, "a", "ready", 1000, 4)
    need = Need(10, 0.1, pinned_to="b")
    for home in (NodeView(2, "b", "lost", 1000, 4), NodeView(2, "b", "draining", 1000, 4, runtimes=())):
        choice = choose([free, home], need, {})
        assert choice.node is None
        assert ("a", "the app's volumes are on b") in [(v.node, v.reason) for v in choice.verdicts]
        assert {change.node for change in choice.remedy} == {"b"}
    assert choose([free], need, {}).remedy[0].kind == "bring_node_back"
    home = NodeView(2, "b", "ready", 20, 1, memory_used_mb=10)
    assert choose([free, home], need, {}).node == home
