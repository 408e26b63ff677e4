"""The rule set is complete, well formed, replaced as a whole, and removed without trace."""

import itertools
import json
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.network import Bridges, Rule, Unavailable, _ports, install, remove, ruleset, trial

RANGES = st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda pair: (min(pair), max(pair))))


@pytest.mark.slow
@given(ranges=RANGES.filter(bool))
def test_merged_ranges_cover_the_same_ports_and_never_overlap(ranges: list[tuple[int, int]]) -> None:
    merged = [(int(part.split("-")[0]), int(part.split("-")[-1])) for part in _ports(ranges).strip("{} ").split(", ")]
    assert all(earlier[1] + 1 < later[0] for earlier, later in itertools.pairwise(merged))
    edges = {port for pair in ranges for port in (pair[0] - 1, pair[0], pair[1], pair[1] + 1)}
    for port in edges:
        assert any(low <= port <= high for low, high in merged) == any(low <= port <= high for low, high in ranges)


def test_protected_ports_come_before_allowed_ones_and_resolvers_before_all() -> None:
    script = ruleset("t", [Rule((10, 19), [(20000, 20999)], [(20500, 20500)])], ["127.0.0.53", "::1"])
    order = ["127.0.0.53", "::1", "169.254.0.0/16", 'oifname != "lo" accept', "{ 20500 }", "{ 20000-20999 } accept"]
    positions = [script.index(part) for part in order]
    assert positions == sorted(positions)
    assert script.rstrip().endswith("}")
    assert "meta skuid { 10-19 }" in script


@pytest.mark.parametrize("name", ["", "a b", "a;b", "A", "1a", "a\n"])
def test_a_table_name_cannot_carry_commands(name: str) -> None:
    with pytest.raises(ValueError, match="no name for an nft table"):
        install(name, [])


def tables() -> set[str]:
    listed = json.loads(subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, check=True).stdout)
    return {entry["table"]["name"] for entry in listed["nftables"] if "table" in entry}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may filter")
def test_a_table_is_replaced_as_a_whole_and_removed_without_trace() -> None:
    try:
        trial()
    except Unavailable as error:
        pytest.skip(str(error))
    name = f"omni_test_{os.getpid()}"
    install(name, [Rule((61000, 61001), [(1, 2)]), Rule((62000, 62001))])
    install(name, [Rule((61000, 61001), [(3, 4)])])
    try:
        listing = subprocess.run(["nft", "list", "table", "inet", name], capture_output=True, text=True).stdout
        assert "3-4" in listing
        assert "1-2" not in listing
        assert "62000" not in listing
    finally:
        remove(name)
    remove(name)
    assert name not in tables()


def test_containers_are_kept_from_control_ports_by_their_bridges() -> None:
    script = ruleset("t", [], [], Bridges("omd", [(8000, 8002)]))
    assert 'iifname "omd*" tcp flags & (syn | ack) == syn tcp dport { 8000-8002 } reject with tcp reset' in script
    assert 'iifname "omd*" ip daddr 169.254.0.0/16 reject' in script
    assert "iifname" not in ruleset("t", [Rule((1, 2))], [])
