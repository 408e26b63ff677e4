"""config.json and its variables: what is read, what is refused, and that a refusal names everything at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.kernel import config, config_doc, config_sources
from omni.kernel.config import ConfigError

EVERYWHERE = "0.0.0.0"  # noqa: S104 - only ever read
FOUNDING = {
    "port": 8000,
    "address": "127.0.0.1",
    "highlight_sql": True,
    "instances": [{"port": 8000 + i, "address": "127.0.0.1"} for i in range(4)],
}
THREE_HOSTS = {
    "port": 8000,
    "address": "10.0.0.1",
    "instances": [{"port": 8000, "address": f"10.0.0.{n}"} for n in (1, 2, 3)],
}
MYSQL = {"OMNI_DATABASE_URL": "mysql://omni:s3cr3t-and-long@db:3306/omni", "OMNI_CLUSTER_SECRET": "x" * 32}


def write(folder: Path, data: Any) -> Path:
    path = folder / "config.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def refusals(folder: Path, data: Any, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        config.load(write(folder, data), environ or {})
    return refused.value.messages


def test_the_founding_file_is_read_exactly(tmp_path: Path) -> None:
    read = config.load(write(tmp_path, FOUNDING), {})
    assert (read.port, read.address, read.highlight_sql) == (8000, "127.0.0.1", True)
    assert [member.id for member in read.members] == [f"127.0.0.1-{port}" for port in (8000, 8001, 8002, 8003)]
    assert read.me == read.members[0]
    assert read.database.engine == read.telemetry_database.engine == "sqlite"
    assert read.database.path != read.telemetry_database.path
    assert read.state == tmp_path / "var"
    assert not read.several_hosts


def test_the_shipped_file_is_the_founding_one() -> None:
    assert json.loads(config.default_file().read_text()) == FOUNDING


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    broken = {
        "prot": 1,
        "port": "8000",
        "instances": [{"port": 8000}, {"port": 8000}, {"port": 8001, "adress": "x"}],
        "timings": {"node_lease_s": 1.0},
        "limits": {"upload_max_bytes": -1},
    }
    messages = refusals(tmp_path, broken, {"OMNI_WEB_WORKERS": "many", "OMNI_NODE": "nobody-1"})
    for part in ("prot = 1", 'port = "8000"', "instances.1", "instances.2.adress", "timings.node_lease_s"):
        assert any(message.startswith(part) for message in messages), part
    assert any("limits.upload_max_bytes = -1" in message for message in messages)
    assert any('web.workers = "many" (OMNI_WEB_WORKERS)' in message for message in messages)
    assert any("nobody-1" in message for message in messages)
    assert all("\n" not in message and ";" in message for message in messages), "one line each, with its fix"


@pytest.mark.parametrize(
    ("change", "environ", "says"),
    [
        ({"highlight_sq": True}, {}, 'did you mean "highlight_sql"?'),
        ({"port": True}, {}, "port = true (config.json)"),
        ({"port": 0}, {}, "greater than or equal to 1"),
        ({"instances": "8000"}, {}, 'instances = "8000"'),
        ({"instances": [{"address": "127.0.0.1"}]}, {}, "instances.0.port"),
        ({"instances": [{"port": 8000}, {"port": 8000, "address": "localhost"}]}, {}, "listed twice"),
        ({"instances": [{"port": 8000, "address": EVERYWHERE}]}, {}, "bind_address"),
        ({"instances": [{"port": 8000}, {"port": 8000, "address": "10.0.0.1"}]}, MYSQL, "cannot reach a loopback"),
        ({"port": 9}, {}, "no node of instances is this one"),
        ({"ingress": {"port": 8001}}, {}, "ingress.port = 8001"),
        ({"instances": [{"port": 8000}, {"port": 18000}]}, {}, "Raft of 127.0.0.1:8000"),
        ({"raft_port_offset": 60000}, {}, "is no port"),
        ({"agent": {"port_base": 65000}}, {}, "would need ports up to"),
        ({"agent": {"port_base": 7900}}, {}, "are the instances' ports"),
        (THREE_HOSTS, {}, "SQLite serves one host only"),
        (THREE_HOSTS, {}, "OMNI_CLUSTER_SECRET"),
        ({}, {"OMNI_CLUSTER_SECRET": "short"}, "too short"),
        ({"timings": {"node_lease_s": 2.0}}, {}, "more than 2 x heartbeat_s"),
        ({"timings": {"build_lease_s": 4}}, {}, "more than 2 x build_heartbeat_s"),
        ({"timings": {"rollup_retention_s": 60}}, {}, "shorter than sample_retention_s"),
        ({"timings": {"shutdown_s": 60}}, {}, "within 30 s"),
        ({"timings": {"forward_timeout_s": 1}}, {}, "more than write_wait_s"),
        ({"timings": {"sample_retention_s": 1}}, {}, "nothing would be kept"),
        ({"consensus": {"election_max_s": 0.3}}, {}, "votes split for ever"),
        ({"consensus": {"heartbeat_s": 0.1}}, {}, "one late message elects"),
        ({"consensus": {"leader_lease_s": 0.3}}, {}, "two leaders could overlap"),
        ({"consensus": {"leader_lease_s": 0.16}}, {}, "one late answer ends the leadership"),
        ({"timings": {"drain_s": -1}}, {}, "timings.drain_s = -1"),
        ({"limits": {"archive_member_bytes": 1 << 40}}, {}, "more than archive_bytes"),
        ({"limits": {"build_file_mb": 1 << 20}}, {}, "more than build_disk_mb"),
        ({"environment": "staging"}, {}, "'development' or 'production'"),
        ({}, {"OMNI_DATABASE_URL": "postgres://u:p@h/n"}, "must begin with one of mysql://"),
        ({}, {"OMNI_DATABASE_URL": "mysql://u:pp@h"}, "names no database"),
        ({}, {"OMNI_DATABASE_URL": "mysql://u:pp@h:99999/n"}, "port or host that is none"),
        ({}, {"OMNI_DATABASE_URL": "mysql://root:root@h/n"}, "well-known default password"),
        ({}, {"OMNI_BROKER_URL": "redis://:redis@h"}, "well-known default password"),
        ({}, {"OMNI_BROKER_URL": "amqp://h"}, "must begin with one of redis://"),
        ({"web": {"public_url": "omni.example.org"}}, {}, "no http address"),
        ({"web": {"api_throttle": "often"}}, {}, "web.api_throttle"),
        ({"artifacts": {"s3_access_key_id": "a", "s3_bucket": "b"}}, {}, "half a pair"),
        ({"artifacts": {"directory": "a", "s3_bucket": "b"}}, {}, "keep one of them"),
        ({}, {"OMNI_ROLE": "king"}, "OMNI_ROLE"),
        ({}, {"OMNI_INSTANCES": "[{]"}, "instances"),
        ({}, {"OMNI_HIGHLIGHT_SQL": "perhaps"}, "(OMNI_HIGHLIGHT_SQL)"),
    ],
)
def test_a_mistake_is_named_with_its_fix(
    tmp_path: Path, change: dict[str, Any], environ: dict[str, str], says: str
) -> None:
    assert any(says in message for message in refusals(tmp_path, FOUNDING | change, environ))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"port": 1,}', "line 1, column"),
        ("[]", "no JSON object"),
        ('{"port": 8000, "port": 8001}', "given twice"),
        ("\xff\xfe", "config.json"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str, says: str) -> None:
    assert any(says in message for message in refusals(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        config.load(tmp_path / "nothing.json", {})


def test_a_mistake_ends_a_program_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        config.load_or_exit(write(tmp_path, {"prot": 1}), {})
    assert ended.value.code == 2
    assert "prot = 1 (config.json): is no key of ours" in capsys.readouterr().err


def test_no_message_holds_a_secret(tmp_path: Path) -> None:
    secret = "tr0ub4dor&3"
    environ = {
        "OMNI_DATABASE_URL": f"mysql://root:{secret}@h:99999/n",
        "OMNI_CLUSTER_SECRET": secret,
        "OMNI_BROKER_URL": f"amqp://user:{secret}@h",
    }
    data = FOUNDING | {"cluster_secret": secret, "secrets": {"djang": secret}, "database_url": 1}
    messages = refusals(tmp_path, data, environ)
    assert len(messages) >= 4
    assert secret not in "\n".join(messages)


def test_known_passwords_pass_in_development(tmp_path: Path) -> None:
    environ = {"OMNI_ENV": "development", "OMNI_DATABASE_URL": "mysql://root:root@127.0.0.1:4001/omni"}
    database = config.load(write(tmp_path, FOUNDING), environ).database
    assert (database.engine, database.port, database.name, database.user) == ("mysql", 4001, "omni", "root")
    assert database.password == "root"
    assert "password" not in repr(database)


def test_a_variable_wins_over_the_file_and_the_origin_is_known(tmp_path: Path) -> None:
    data = FOUNDING | {"domain": "apps.example.org", "timings": {"drain_s": 7}}
    read = config.load(write(tmp_path, data), {"OMNI_DOMAIN": "x.example.org", "OMNI_STATE": "/srv/omni"})
    assert (read.domain, read.timings.drain_s, read.state) == ("x.example.org", 7.0, Path("/srv/omni"))
    assert read.origin("domain") == "OMNI_DOMAIN"
    assert read.origin("timings", "drain_s") == "config.json"
    assert read.origin("ingress", "port") == "default"


def test_an_unknown_variable_is_a_warning_and_no_more(tmp_path: Path) -> None:
    read = config.load(write(tmp_path, FOUNDING), {"OMNI_PROT": "1", "OMNI_TEST_DATABASE": "sqlite", "OMNI_SQL": "1"})
    (warning,) = read.warnings
    assert "OMNI_PROT" in warning
    assert 'did you mean "OMNI_PORT"?' in warning
    assert read.sql


def test_a_container_runs_alone_on_port_3000(tmp_path: Path) -> None:
    environ = {"OMNI_PORT": "3000", "OMNI_ADDRESS": EVERYWHERE, "OMNI_INSTANCES": "[]"}
    read = config.load(write(tmp_path, FOUNDING), environ)
    assert [member.url for member in read.members] == ["http://127.0.0.1:3000"]
    assert read.listen_address == EVERYWHERE


@pytest.mark.parametrize(
    ("environ", "which", "node"),
    [
        ({}, {}, "127.0.0.1-8000"),
        ({"OMNI_NODE": "127.0.0.1-8002"}, {}, "127.0.0.1-8002"),
        ({"OMNI_PORT": "8003"}, {}, "127.0.0.1-8003"),
        ({"OMNI_PORT": "8003", "OMNI_ADDRESS": "localhost"}, {}, "127.0.0.1-8003"),
        ({"OMNI_NODE": "127.0.0.1-8002"}, {"port": 8001}, "127.0.0.1-8001"),
    ],
)
def test_a_node_knows_itself_by_address_and_port(
    tmp_path: Path, environ: dict[str, str], which: dict[str, Any], node: str
) -> None:
    assert config.load(write(tmp_path, FOUNDING), environ, **which).me.id == node


def test_same_port_on_three_hosts_is_three_nodes(tmp_path: Path) -> None:
    read = config.load(write(tmp_path, THREE_HOSTS), {**MYSQL, "OMNI_ADDRESS": "10.0.0.2"})
    assert (read.me.id, read.index, read.several_hosts) == ("10.0.0.2-8000", 1, True)
    assert read.members_here == (read.me,)
    assert read.telemetry_database == read.database


def test_a_worker_needs_neither_database_nor_secret(tmp_path: Path) -> None:
    assert config.load(write(tmp_path, THREE_HOSTS), {"OMNI_ROLE": "worker"}).several_hosts


def test_instance_ports_of_nodes_do_not_overlap(tmp_path: Path) -> None:
    read = config.load(write(tmp_path, FOUNDING), {})
    assert [read.port_range(member) for member in read.members[:2]] == [(20000, 20499), (20500, 20999)]


def test_socket_paths_stay_short(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 80) / ("e" * 80)
    read = config.load(write(tmp_path, FOUNDING), {"OMNI_STATE": str(deep)})
    assert len(read.broker_socket.encode()) <= 100
    assert read.broker == f"redis+socket://{read.broker_socket}"


def test_database_urls_are_taken_apart(tmp_path: Path) -> None:
    url = "mysql://us%40er:p%2Fw@db.example.org/name?unix_socket=/run/x.sock&ssl_mode=REQUIRED"
    database = config.load(write(tmp_path, FOUNDING), {"OMNI_DATABASE_URL": url}).database
    assert (database.user, database.password, database.socket) == ("us@er", "p/w", "/run/x.sock")
    assert database.options == (("ssl_mode", "REQUIRED"),)


def test_the_page_names_every_key_with_variable_default_and_meaning() -> None:
    page = config_doc.PAGE.read_text(encoding="utf-8")
    assert page == config_doc.render(page), "run: python -m omni.kernel.config_doc --write"
    for info in config_sources.KEYS.values():
        assert f"`{info.name}` | `{info.variable}`" in page
        assert info.field.description


def test_variables_are_unique() -> None:
    assert len(config_sources.VARIABLES) == len(config_sources.KEYS)
    assert not set(config_sources.VARIABLES) & set(config_sources.INTERNAL_VARIABLES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 70_000) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([info.path[0] for info in config_sources.KEYS.values()]) | st.text(max_size=10)


@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_whatever_the_file_holds_there_is_a_configuration_or_messages(data: dict[str, Any]) -> None:
    sources = config_sources.Sources(file="config.json", values=json.loads(json.dumps(data)))
    read = config._validate(sources)
    assert read.port
    for name, value in data.items():
        if name not in config.Config.model_fields:
            assert any(message.startswith(f"{name} =") for message in sources.errors), (name, value)


@pytest.mark.slow
@given(
    st.integers(1, 65_535), st.floats(0.1, 1000), st.booleans(), st.text(max_size=20).filter(lambda s: "\0" not in s)
)
def test_a_variable_means_what_the_same_value_in_the_file_means(port: int, drain: float, sql: bool, text: str) -> None:
    by_file = {"port": port, "timings": {"drain_s": drain}, "highlight_sql": sql, "web": {"public_url": text}}
    by_variable = config_sources.read(
        None,
        {
            "OMNI_PORT": str(port),
            "OMNI_DRAIN_S": repr(drain),
            "OMNI_HIGHLIGHT_SQL": str(sql).lower(),
            "OMNI_WEB_PUBLIC_URL": text,
        },
    )
    assert by_variable.values == by_file


@given(st.text(min_size=1, max_size=30).filter(lambda text: not set(text) & set(":/@*") and text.isprintable()))
def test_a_url_is_shown_without_its_password(password: str) -> None:
    assert config_sources.mask_url(f"mysql://u:{password}@h/n") == "mysql://u:****@h/n"
