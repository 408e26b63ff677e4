"""The plan: what is started, with which environment, and which files a first start makes."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from accounts import tokens as accounts_tokens
from omni.kernel import config, config_members, internal_tokens
from omni.launch import bootstrap, demo, fresh, options, plan, ready, rotation, users
from omni.launch.screen import Screen, last_lines
from omni.launch.spec import ProcessSpec
from sandbox.identity import uid_for

MEMBERS = [{"port": 8000 + number} for number in range(4)]
SECRETS = {
    "OMNI_DATABASE_URL": "mysql://omni:very-s3cret@127.0.0.1/omni",
    "OMNI_CLUSTER_SECRET": "c" * 40,
    "OMNI_DJANGO_KEY": "d" * 40,
    "OMNI_MASTER_KEY": "m" * 40,
    "OMNI_ARTIFACTS_S3_ACCESS_KEY_ID": "AKEXAMPLE",
    "OMNI_ARTIFACTS_S3_SECRET_ACCESS_KEY": "s3-s3cret",
}


def load(folder: Path, environ: dict[str, str] | None = None, **keys: Any) -> config.Config:
    file = folder / "config.json"
    file.write_text(json.dumps({"instances": MEMBERS} | keys))
    return config.load(file, {"OMNI_STATE": str(folder / "state")} | (environ or {}))


def specs(built: dict[str, Any]) -> dict[str, ProcessSpec]:
    every = [*built["migrate"], *built["broker_process"], *built["services"], *built["nodes"]]
    every += [data for processes in built["node_processes"].values() for data in processes]
    return {data["mark"]: ProcessSpec.from_json(data) for data in every}


def test_every_process_of_this_machine_is_planned(tmp_path: Path) -> None:
    built = json.loads(json.dumps(plan.build(load(tmp_path))))
    wanted = {"migrate", "broker", "worker", "ingress"}
    for member in MEMBERS:
        node = f"node-{member['port']}"
        wanted |= {node, f"{node}/raft", f"{node}/web", f"{node}/daemon", f"{node}/agent"}
    assert set(specs(built)) == wanted
    for mark, spec in specs(built).items():
        environment = spec.environment({})
        assert environment["OMNI_PROCESS"] == mark
        assert environment["OMNI_STATE"] == str(tmp_path / "state")
        assert spec.group == ("/" not in mark), "a node's processes share its group, all others have their own"


def test_one_node_alone_runs_no_raft(tmp_path: Path) -> None:
    built = plan.build(load(tmp_path, instances=MEMBERS[:1]))
    assert "node-8000/raft" not in specs(built)
    assert not [entry for entry in built["ports"] if "Raft" in entry[2]]


def test_a_node_hands_its_leadership_over_before_its_web_server_ends_and_raft_goes_last(tmp_path: Path) -> None:
    built = specs(plan.build(load(tmp_path)))
    order = {role: built[f"node-8000/{role}"].stop_order for role in ("daemon", "web", "agent", "raft")}
    assert order["daemon"] < order["web"] == order["agent"] < order["raft"]
    (tmp_path / "alone").mkdir()
    alone = specs(plan.build(load(tmp_path / "alone", instances=MEMBERS[:1])))
    assert alone["node-8000/web"].stop_order < alone["node-8000/daemon"].stop_order, "open requests need the lease"


def test_a_taken_raft_port_is_told_like_any_other(tmp_path: Path) -> None:
    built = plan.build(load(tmp_path))
    assert ("127.0.0.1", 18002, "Raft of node 127.0.0.1:8002") in built["ports"]


def test_raft_is_given_the_cluster_secret_and_nothing_else_that_is_secret(tmp_path: Path) -> None:
    built = specs(plan.build(load(tmp_path, SECRETS)))
    environment = built["node-8000/raft"].environment(SECRETS | {"PATH": "/bin"})
    assert set(SECRETS) & set(environment) == {"OMNI_CLUSTER_SECRET"}
    assert config.load(None, environment).role == "raft"


def test_members_of_other_hosts_are_not_started_here(tmp_path: Path) -> None:
    hosts = [{"port": 8000, "address": "127.0.0.1"}]
    built = plan.build(load(tmp_path, instances=hosts))
    assert len(built["nodes"]) == 1
    elsewhere = [{"port": 8000, "address": address} for address in ("198.51.100.1", "198.51.100.2")]
    environ = {name: SECRETS[name] for name in ("OMNI_DATABASE_URL", "OMNI_CLUSTER_SECRET")}
    with pytest.raises(config.ConfigError, match="address of this machine"):
        plan.build(load(tmp_path, environ, address="198.51.100.1", instances=elsewhere))


HOSTS = [{"port": 8000, "address": f"198.51.100.{number}"} for number in (1, 2)]
SHARED = {name: SECRETS[name] for name in ("OMNI_DATABASE_URL", "OMNI_CLUSTER_SECRET")}


def on_host(folder: Path, address: str, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> config.Config:
    """The configuration as the host with this address reads it; the file is the same on all."""
    monkeypatch.setattr(config_members, "is_local", lambda known: known == address)
    monkeypatch.setattr(plan, "is_local", lambda known: known == address)
    return load(folder, SHARED, instances=HOSTS, **keys)


def test_each_host_starts_its_own_nodes_and_services_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = plan.build(on_host(tmp_path, "198.51.100.2", monkeypatch))
    assert [member["id"] for member in built["here"]] == ["198.51.100.2-8000"]
    assert len(built["members"]) == 2
    assert {"broker", "worker", "ingress", "node-8000"} <= set(specs(built))
    assert ["198.51.100.2", 8080, "ingress"] in [list(entry) for entry in built["ports"]]
    assert specs(built)["worker"].set["OMNI_WORKER"] == "builder-198.51.100.2"


def test_the_ingress_of_several_hosts_listens_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = on_host(tmp_path, "198.51.100.2", monkeypatch, ingress={"address": "0.0.0.0"})  # noqa: S104
    assert read.ingress_address == "0.0.0.0"  # noqa: S104


def test_several_hosts_share_the_first_admin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        plan.build(on_host(folder, f"198.51.100.{number}", monkeypatch))
        made.append([(folder / "state" / name).read_text() for name in ("admin.token", "admin.password")])
    assert made[0] == made[1]
    assert accounts_tokens.read(made[0][0].strip()).digest


def test_worker_agent_and_ingress_are_given_no_secret(tmp_path: Path) -> None:
    built = specs(plan.build(load(tmp_path, SECRETS | {"OMNI_ARTIFACTS_S3_BUCKET": "b"})))
    for mark in ("worker", "ingress", "node-8000/agent"):
        environment = built[mark].environment(SECRETS | {"PATH": "/bin"})
        assert environment["PATH"] == "/bin"
        text = json.dumps(environment)
        assert not [value for value in SECRETS.values() if value in text], mark
    worker_file = (tmp_path / "state" / "worker" / "config.json").read_text()
    assert not [value for value in SECRETS.values() if value in worker_file]
    assert set(SECRETS) <= set(built["node-8000/web"].environment(SECRETS))


def test_the_worker_reads_its_own_configuration(tmp_path: Path) -> None:
    built = specs(plan.build(load(tmp_path, timings={"build_lease_s": 44})))
    environment = built["worker"].environment({})
    read = config.load(None, environment)
    assert (read.role, read.timings.build_lease_s) == ("worker", 44.0)
    assert read.broker == environment["OMNI_BROKER_URL"]


def test_tokens_on_disk_are_the_ones_that_the_control_plane_verifies(tmp_path: Path) -> None:
    plan.build(load(tmp_path))
    state = tmp_path / "state"
    secret = (state / "cluster.secret").read_text().strip()
    agent = json.loads((state / "node-8001" / "agent.json").read_text())
    ingress = json.loads((state / "ingress" / "ingress.json").read_text())
    assert internal_tokens.verify(agent["token"], secret) == ("node", "127.0.0.1-8001")
    assert internal_tokens.verify(ingress["token"], secret) == ("node", "127.0.0.1-8000")
    assert agent["control_plane"][0] == "http://127.0.0.1:8001"
    assert (agent["index"], agent["members_on_host"]) == (1, 4)
    assert agent["port_range"] == [20500, 20999]
    assert agent["instance_ports"] == [20000, 21999]
    assert agent["protected_ports"] == [[8000, 8003], [8080, 8080], [18000, 18003]]


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_what_is_secret_is_private_and_a_second_start_keeps_it(tmp_path: Path) -> None:
    plan.build(load(tmp_path))
    state = tmp_path / "state"
    private = ["admin.token", "admin.password", "cluster.secret", "django.key", "master.key"]
    private += ["node-8000/agent.json", "ingress/ingress.json", "worker/config.json"]
    before = {name: (state / name).read_text() for name in private}
    for name in private:
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600, name
    for folder in ("run", "broker", "worker", "ingress"):
        assert stat.S_IMODE((state / folder).stat().st_mode) == 0o700, folder
    for folder in (state, state / "instances", state / "node-8000"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o711, "apps pass through, and nobody looks around"
    assert stat.S_IMODE((state / "artifacts").stat().st_mode) == 0o700
    broker = (state / "run" / "broker").stat()
    if os.geteuid() == 0:
        worker = uid_for("worker", 0, users.base_of(load(tmp_path)))
        assert (stat.S_IMODE(broker.st_mode), broker.st_gid) == (0o2710, worker)
    else:
        assert stat.S_IMODE(broker.st_mode) == 0o700
    plan.build(load(tmp_path))
    assert {name: (state / name).read_text() for name in private} == before


def test_the_admins_token_has_the_form_of_tokens(tmp_path: Path) -> None:
    from accounts import tokens

    assert tokens.read(bootstrap.admin_token(load(tmp_path))).prefix.startswith("omni_")


def test_an_external_broker_is_not_started(tmp_path: Path) -> None:
    built = plan.build(load(tmp_path, {"OMNI_BROKER_URL": "redis://:a-real-password@10.0.0.9/0"}))
    assert built["broker_process"] == []
    assert specs(built)["worker"].environment({})["OMNI_BROKER_URL"] == "redis://:a-real-password@10.0.0.9/0"


def test_fresh_removes_what_is_ours_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = load(tmp_path)
    plan.build(read)
    state = tmp_path / "state"
    (state / "thesis.txt").write_text("mine")
    (state / "omni.sqlite3-wal").write_text("x")
    monkeypatch.setattr(fresh, "sweep_instances", lambda _state: None)
    assert fresh.wipe(read)
    assert [entry.name for entry in state.iterdir()] == ["thesis.txt"]


def test_fresh_leaves_an_external_database_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = load(tmp_path, SECRETS)
    plan.build(read)
    assert not fresh.wipe(read)
    assert (tmp_path / "state" / "admin.token").exists()
    assert "the database is elsewhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], options.Options()),
        (["--config", "x.json", "--state=/s", "--demo"], options.Options(config="x.json", state="/s", demo=True)),
        (["--no-restart", "--sql", "--fresh"], options.Options(no_restart=True, sql=True, fresh=True)),
        (["--help"], 0),
        (["--confg", "x"], 2),
        (["--config"], 2),
    ],
)
def test_the_command_line(arguments: list[str], wanted: options.Options | int) -> None:
    assert options.parse(arguments) == wanted


def test_a_big_log_is_cut_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for letter in (b"a", b"b", b"c", b"d", b"e"):
            os.write(descriptor, letter * 100)
            assert rotation.rotate(log, max_bytes=50, kept=3)
        os.write(descriptor, b"end")
        assert not rotation.rotate(log, max_bytes=50, kept=3)
    finally:
        os.close(descriptor)
    kept = {entry.name: entry.read_bytes()[:1] for entry in tmp_path.iterdir()}
    assert kept == {"log": b"e", "log.1": b"e", "log.2": b"d", "log.3": b"c"}
    assert log.read_bytes() == b"end"


def test_the_same_folder_packs_to_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "app.py").write_text("print(1)")
        (folder / "Procfile").write_text("web: python sub/app.py")
        os.utime(folder / "Procfile", (1, 1 if name == "one" else 2))
    assert demo.pack(tmp_path / "one") == demo.pack(tmp_path / "two")


def test_the_next_step_can_be_copied(tmp_path: Path) -> None:
    built = plan.build(load(tmp_path))
    text = ready.next_steps(built)
    assert f"TOKEN=$(cat {tmp_path}/state/admin.token)" in text
    assert "http://127.0.0.1:8000/app/create" in text
    assert "http://hello.localhost:8080/" in text


def test_a_step_is_one_line_with_its_time(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    view = Screen()
    view.begin("database", "migrating")
    view.end("SQLite")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[:2] == ["database", "SQLite"]
    assert line.endswith(" s")
    (tmp_path / "log").write_text("one\ntwo\nthree\n")
    assert last_lines(str(tmp_path / "log"), 2) == ["    two", "    three"]
