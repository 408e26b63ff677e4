"""What a build may know of the host's registries: by allow-list, without credentials, files bound read-only."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from releases.registry_settings import INSIDE, RegistrySettings, read


@pytest.fixture(autouse=True)
def lease() -> None:
    """No lease is needed here: nothing is written."""


def settings(environ: dict[str, str], pip: str = "", npm: str = "", room: Path | None = None) -> RegistrySettings:
    files: list[list[Path]] = [[], []]
    for kind, text in enumerate((pip, npm)):
        if room and text:
            file = room / f"conf{kind}"
            file.write_text(text)
            files[kind].append(file)
    return read(environ, files[0], files[1])


def test_the_environment_stands_above_the_files(tmp_path: Path) -> None:
    found = settings(
        {"PIP_INDEX_URL": "https://env.test/simple", "npm_config_registry": "https://env.test/npm"},
        "[global]\nindex-url = https://file.test/simple\ntimeout = 9\n[install]\nno-binary = x",
        "registry=https://file.test/npm\n@team:registry = https://team.test/\n; comment=1\n",
        tmp_path,
    )
    assert found.pip_conf == "[global]\nindex-url = https://env.test/simple\ntimeout = 9\n[install]\nno-binary = x\n"
    assert found.npmrc == "@team:registry=https://team.test/\nregistry=https://env.test/npm\n"


def test_credentials_and_everything_not_asked_for_stay_outside(tmp_path: Path) -> None:
    found = settings(
        {
            "PIP_EXTRA_INDEX_URL": "https://me:canary@a.test/simple https://canary@b.test/simple",
            "PIP_TARGET": "/canary", "PIP_CLIENT_CERT": "/canary", "PIP_LOG": "/canary", "PIP_PYTHON": "/canary",
            "NPM_CONFIG__AUTH": "canary", "NPM_CONFIG_PREFIX": "/canary", "AWS_SECRET_ACCESS_KEY": "canary",
            "HTTPS_PROXY": "http://user:canary@proxy.test:3128", "OMNI_WORKER_TOKEN": "canary", "NPM_TOKEN": "canary",
        },
        "[global]\nindex-url = https://u:canary@c.test/\n[freeze]\nx = canary\n[global2]\ny = canary",
        "//a.test/:_authToken=canary\n_password=canary\nkey=canary\nregistry=https://x:canary@r.test/\nca=${canary}\n",
        tmp_path,
    )  # fmt: skip
    assert "canary" not in repr(found)
    assert "https://a.test/simple https://b.test/simple" in found.pip_conf
    assert found.env["HTTPS_PROXY"] == "http://proxy.test:3128"
    assert len(found.notes) == 4


def test_named_files_and_indexes_are_bound_at_their_own_place(tmp_path: Path) -> None:
    for name in ("root/simple", "root/files", "wheels", "state"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ca.pem").write_text("x")
    found = settings({
        "PIP_EXTRA_INDEX_URL": f"file://{tmp_path}/root/simple", "PIP_FIND_LINKS": f"{tmp_path}/wheels /nowhere",
        "SSL_CERT_FILE": f"{tmp_path}/ca.pem", "PIP_CERT": "/etc/ssl/certs/x.pem",
    })  # fmt: skip
    assert set(found.paths) == {f"{tmp_path}/{name}" for name in ("root", "wheels", "ca.pem")}
    binds = found.write(tmp_path / "out")
    assert not any(bind.writable for bind in binds)
    assert {bind.target for bind in binds} >= {INSIDE, f"{tmp_path}/root"}
    assert (tmp_path / "out" / "pip.conf").read_text() == found.pip_conf


@pytest.mark.parametrize("path", ["/", "/home", "/root", "/var", str(Path.home()), f"{Path.home()}/../"])
def test_too_much_of_the_host_is_never_bound(path: str) -> None:
    found = settings({"PIP_FIND_LINKS": path, "PIP_EXTRA_INDEX_URL": f"file://{path}"})
    assert found.paths == ()


def test_registries_on_this_host_keep_their_ports(tmp_path: Path) -> None:
    found = settings({
        "PIP_INDEX_URL": "http://localhost:3141/root/pypi", "NPM_CONFIG_REGISTRY": "http://127.0.0.1:4873/",
        "https_proxy": "http://[::1]:8118", "PIP_EXTRA_INDEX_URL": "https://elsewhere.test/",
    })  # fmt: skip
    assert found.loopback_ports == (3141, 4873, 8118)


@given(text=st.text(max_size=400), value=st.text(max_size=80))
def test_no_configuration_however_odd_stops_the_builds(
    text: str, value: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    room = tmp_path_factory.mktemp("odd")
    (room / "a").write_text(text, encoding="utf-8", errors="replace")
    read({"PIP_INDEX_URL": value, "PIP_NO_INDEX": value, "HTTP_PROXY": value}, [room / "a"], [room / "a"])
