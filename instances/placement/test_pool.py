"""A pool ranks as the plain rule does, keeps books of its own, and explains itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instances.placement import Need, NodeView, Pool
from instances.placement.model import KEPT_VERDICTS

ZONES = st.sampled_from([{"zone": "a"}, {"zone": "b"}, {}])
NODES = st.lists(
    st.builds(
        NodeView, id=st.integers(1, 9), name=st.sampled_from("abcdefgh"), status=st.sampled_from(["ready", "lost"]),
        memory_mb=st.integers(50, 300), cpu_count=st.just(4), memory_used_mb=st.integers(0, 200), labels=ZONES,
    ),
    max_size=7, unique_by=(lambda view: view.id, lambda view: view.name),
)  # fmt: skip
OWN = st.dictionaries(st.integers(1, 9), st.integers(0, 3))
NEEDS = st.builds(
    Need, memory_mb=st.integers(10, 100), cpu=st.just(0.1), rank=st.sampled_from(["spread", "binpack"]),
    anti_affinity=st.sampled_from(["preferred", "required", "off"]), spread_by=st.sampled_from(["", "zone"]),
)  # fmt: skip


def ranked(nodes: list[NodeView], need: Need, own: dict[int, int]) -> list[str]:
    """The rule in one place: label groups, own instances, allocation, name."""
    known = {node.id: node for node in nodes}
    groups: dict[str | None, int] = {}
    for node_id, count in own.items():
        if node_id in known:
            zone = known[node_id].labels.get("zone")
            groups[zone] = groups.get(zone, 0) + count

    def score(node: NodeView) -> tuple[object, ...]:
        group = groups.get(node.labels.get("zone"), 0) if need.spread_by and own else 0
        alone = 0 if need.anti_affinity == "off" else own.get(node.id, 0)
        used = -node.memory_used_mb if need.rank == "binpack" else node.memory_used_mb
        return group, alone, used, node.name

    fits = [
        node for node in nodes
        if node.status == "ready" and node.memory_mb - node.memory_used_mb >= need.memory_mb
        and not (need.anti_affinity == "required" and own.get(node.id, 0))
    ]  # fmt: skip
    return [node.name for node in sorted(fits, key=score)]


@given(NODES, NEEDS, OWN)
def test_the_ranking_is_the_plain_rule(nodes, need, own):
    choice = Pool(nodes).choose(need, own)
    assert [v.node for v in choice.verdicts if v.fits] == ranked(nodes, need, own)
    assert len(choice.verdicts) == len(nodes) == choice.nodes


@given(NODES, NEEDS, st.lists(st.integers(1, 9), max_size=8), st.randoms(use_true_random=False))
def test_taking_is_the_same_as_having_been_told(nodes, need, takers, random):
    """A pool that reserved step by step answers like one that was made from the result."""
    pool, told = Pool(nodes), {node.id: node for node in nodes}
    for node_id in takers:
        pool.take(node_id, 7, 0.25)
        if node_id in told:
            view = told[node_id]
            told[node_id] = NodeView(
                view.id, view.name, view.status, view.memory_mb, view.cpu_count, view.memory_used_mb + 7,
                view.cpu_used + 0.25, view.runtimes, view.labels, view.leftovers,
            )  # fmt: skip
    shuffled = list(told.values())
    random.shuffle(shuffled)
    assert pool.choose(need, {}).to_json() == Pool(shuffled).choose(need, {}).to_json()


def test_a_fork_keeps_its_own_books():
    pool = Pool([NodeView(1, "a", "ready", 100, 4), NodeView(2, "b", "ready", 100, 4, 10)])
    fork = pool.fork()
    fork.take(1, 50, 0.1)
    need = Need(20, 0.1)
    assert fork.choose(need, {}).node.name == "b"
    assert pool.choose(need, {}).node.name == "a"
    assert pool.free(1) == 100
    assert fork.free(1) == 50


def test_a_large_cluster_keeps_the_best_and_counts_the_rest():
    nodes = [NodeView(i, f"n{i:04}", "lost" if i % 2 else "ready", 100, 4) for i in range(1000)]
    choice = Pool(nodes).choose(Need(20, 0.1), {})
    assert len([v for v in choice.verdicts if v.fits]) == KEPT_VERDICTS
    assert choice.refused == {"the node is lost": 500}
    assert choice.nodes == 1000


def test_an_answer_of_nothing_fits_counts_every_node():
    nodes = [NodeView(i, f"n{i:04}", "ready", 100, 4, i % 60) for i in range(1000)]
    choice = Pool(nodes).choose(Need(200, 0.1), {})
    assert choice.node is None
    assert choice.reason == "no node fits: 200 MB of memory are needed, at most 100 are free (1000 of 1000 nodes)"
