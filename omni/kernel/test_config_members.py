"""How a host of several finds its own nodes, and how servers are named in a URL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omni.kernel import config, config_databases, config_members

GIVEN = {"OMNI_DATABASE_URL": "mysql://u:p4ssw0rd-x@db.example/omni", "OMNI_CLUSTER_SECRET": "c" * 40}


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The addresses of this made-up machine."""
    addresses: set[str] = set()
    monkeypatch.setattr(config_members, "is_local", lambda address: address in addresses)
    return addresses


def load(folder: Path, environ: dict[str, str] | None = None, **keys: Any) -> config.Config:
    nodes = [{"port": 8000 + number, "address": f"10.0.0.{host}"} for host in (1, 2) for number in (0, 1)]
    file = folder / "config.json"
    file.write_text(json.dumps({"port": 8000, "address": "10.0.0.1", "instances": nodes} | keys))
    return config.load(file, GIVEN | (environ or {}))


def test_with_one_file_on_all_hosts_each_finds_its_own_first_node(tmp_path: Path, local: set[str]) -> None:
    local.add("10.0.0.2")
    read = load(tmp_path)
    assert read.me.id == "10.0.0.2-8000"
    assert [member.id for member in read.members_here] == ["10.0.0.2-8000", "10.0.0.2-8001"]


def test_the_port_of_the_file_chooses_among_the_nodes_of_the_host(tmp_path: Path, local: set[str]) -> None:
    local |= {"10.0.0.1", "10.0.0.2"}
    assert load(tmp_path, port=8001, address="10.0.0.1").me.id == "10.0.0.1-8001"


def test_what_a_process_was_told_wins_over_the_address_of_its_machine(tmp_path: Path, local: set[str]) -> None:
    local.add("10.0.0.2")
    assert load(tmp_path, {"OMNI_NODE": "10.0.0.1-8001"}).me.id == "10.0.0.1-8001"
    assert load(tmp_path, {"OMNI_PORT": "8001"}).me.id == "10.0.0.1-8001"


def test_a_machine_that_is_none_of_the_hosts_is_told_so(tmp_path: Path, local: set[str]) -> None:
    with pytest.raises(config.ConfigError, match="no node of instances is this one"):
        load(tmp_path, address="127.0.0.1")


def test_several_servers_share_one_url(tmp_path: Path) -> None:
    found = config_databases.mysql("mysql://us%40er:p%2Fw@h1:3307,h2,[fd00::1]:3309/name?ssl_mode=REQUIRED")
    assert found.hosts == (("h1", 3307), ("h2", 3306), ("fd00::1", 3309))
    assert (found.user, found.password, found.name, found.several_servers) == ("us@er", "p/w", "name", True)
    assert found.options == (("ssl_mode", "REQUIRED"),)
    assert not config_databases.mysql("mysql://u:p@h1/name").several_servers
    assert not config_databases.mysql("mysql://u@h1,h2/name?unix_socket=/s").several_servers


@pytest.mark.parametrize("places", ["h1,", "h1:0,h2", "h1:x", "h1:3306,h2:99999", ",h1"])
def test_a_server_that_is_none_is_refused(tmp_path: Path, places: str, local: set[str]) -> None:
    local.add("10.0.0.1")
    with pytest.raises(config.ConfigError, match="has a port or host that is none") as refused:
        load(tmp_path, {"OMNI_DATABASE_URL": f"mysql://u:hidden-pass@{places}/name"})
    assert "hidden-pass" not in str(refused.value)


def test_more_copies_than_hosts_could_never_be_kept(tmp_path: Path, local: set[str]) -> None:
    local.add("10.0.0.1")
    with pytest.raises(config.ConfigError, match="there are only 2 hosts to keep them"):
        load(tmp_path, artifacts={"copies": 3})
    assert load(tmp_path, artifacts={"copies": 3, "s3_bucket": "b"}).artifacts.s3_bucket == "b"


def test_two_hosts_and_a_database_of_each_hosts_own_are_warned_of(tmp_path: Path, local: set[str]) -> None:
    local.add("10.0.0.1")
    assert "three hosts go on without one" in load(tmp_path).warnings[0]
    loopback = load(tmp_path, {"OMNI_DATABASE_URL": "mysql://u:p4ssw0rd-x@127.0.0.1,10.0.0.2/omni"})
    assert "Galera" in loopback.warnings[1]


def test_members_of_one_host_talk_plainly_and_those_of_others_over_tls(tmp_path: Path, local: set[str]) -> None:
    local.add("10.0.0.2")
    read = load(tmp_path)
    assert read.control_plane(read.members[3]) == [
        "http://10.0.0.2:8001",
        "http://10.0.0.2:8000",
        "https://10.0.0.1:13000",
        "https://10.0.0.1:13001",
    ]


def test_a_port_for_the_other_hosts_that_something_else_uses_is_refused(tmp_path: Path, local: set[str]) -> None:
    local.add("10.0.0.1")
    with pytest.raises(config.ConfigError, match="the other hosts' way to"):
        load(tmp_path, member_port_offset=80)  # 8000 + 80 is the ingress
