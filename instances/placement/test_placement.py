"""Placement explains itself and is deterministic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instances.placement import Constraint, Need, NodeView, Pool, choose, read_constraints


def node(name: str = "n1", **fields) -> NodeView:
    defaults = {"id": int(name[1:]), "name": name, "status": "ready", "memory_mb": 1000, "cpu_count": 1}
    return NodeView(**{**defaults, **fields})


NEED = Need(100, 0.5)


def test_each_filter_says_why():
    refused = [
        (node(status="lost"), NEED, "the node is lost"),
        (node(leftovers=2), NEED, "2 instances from before it was lost"),
        (node(), Need(100, 0.5, "docker"), "no docker runtime"),
        (node(memory_used_mb=950), NEED, "100 MB of memory are needed, 50 are free"),
        (node(cpu_used=15.8), NEED, "weight of 0.5 is needed, 0.2 is free"),
        (node(), Need(100, 0.5, constraints=(Constraint("disk", "=", "ssd"),)), "disk = ssd does not hold"),
    ]
    for view, need, why in refused:
        choice = choose([view], need, {})
        assert choice.node is None
        assert why in choice.verdicts[0].reason
        assert why.split(", ")[0] in choice.reason


def test_no_node_at_all_says_so():
    assert choose([], NEED, {}).reason == "no node is known yet"


def test_fewest_instances_of_the_app_then_least_memory_then_name():
    nodes = [node("n1", memory_used_mb=10), node("n2"), node("n3")]
    assert choose(nodes, NEED, {}).node.name == "n2"
    assert choose(nodes, NEED, {2: 1, 3: 1}).node.name == "n1"
    assert choose(nodes, NEED, {1: 1, 2: 1}).node.name == "n3"


def test_constraints():
    labels = {"zone": "a"}
    holds = [("=", "a"), ("!=", "b"), ("in", ["a", "b"]), ("not_in", ["b"]), ("exists", None)]
    assert all(Constraint("zone", op, value).holds(labels) for op, value in holds)
    assert not any(Constraint("zone", op, v).holds(labels) for op, v in [("=", "b"), ("!=", "a"), ("not_in", ["a"])])
    assert not Constraint("rack", "exists").holds(labels)
    assert read_constraints({"constraints": [{"label": "zone", "value": "a"}]}) == (Constraint("zone", "=", "a"),)
    assert read_constraints({}) == ()


VIEWS = st.lists(
    st.builds(
        NodeView, st.integers(1, 9), st.sampled_from("abcdef"), st.sampled_from(["ready", "lost", "draining"]),
        st.integers(0, 300), st.integers(1, 2), st.integers(0, 300), st.floats(0, 40),
    ),
    max_size=6, unique_by=lambda view: view.id,
)  # fmt: skip


@given(VIEWS, st.integers(1, 200), st.dictionaries(st.integers(1, 9), st.integers(0, 3)))
def test_the_choice_fits_is_best_and_covers_every_node(views, memory, own):
    need = Need(memory, 0.5)
    choice = choose(views, need, own)
    assert choice == choose(list(views), need, own)
    assert len(choice.verdicts) == len(views)
    fits = [
        view for view in views
        if view.status == "ready" and view.memory_mb - view.memory_used_mb >= memory
        and view.cpu_count * 16 - view.cpu_used >= 0.5
    ]  # fmt: skip
    assert (choice.node is None) == (not fits)
    if choice.node is not None:
        assert own.get(choice.node.id, 0) == min(own.get(view.id, 0) for view in fits)
        pool = Pool(views)
        before = pool.free(choice.node.id)
        pool.take(choice.node.id, memory, 0.5)
        assert pool.free(choice.node.id) == before - memory
