"""Who signs for which host: a public authority where one can, the ingress's own otherwise, and only for known names."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from agent.ingress.caddy_config import Layout, build
from agent.ingress.caddy_process import find_binary
from agent.ingress.tls import Https, tls_apps


def issuers(https: Https) -> list[dict[str, object]]:
    (policy,) = tls_apps(https, 1234)["tls"]["automation"]["policies"]
    found: list[dict[str, object]] = policy["issuers"]
    return found


def test_internal_asks_no_public_authority() -> None:
    assert issuers(Https(8443)) == [{"module": "internal"}]


def test_acme_asks_the_public_one_first_and_the_own_one_where_that_gives_none() -> None:
    assert issuers(Https(8443, "acme")) == [{"module": "acme"}, {"module": "internal"}]
    given = Https(8443, "acme", "ops@example.org", "https://ca.example/directory")
    assert issuers(given)[0] == {"module": "acme", "email": "ops@example.org", "ca": "https://ca.example/directory"}


def test_a_certificate_is_only_had_for_a_name_that_the_route_table_knows() -> None:
    on_demand = tls_apps(Https(8443, "acme"), 1234)["tls"]["automation"]["on_demand"]
    assert on_demand["permission"]["endpoint"].startswith("http://127.0.0.1:1234/")


@pytest.mark.parametrize("issuer", ["internal", "acme"])
def test_caddy_takes_the_configuration(tmp_path: Path, issuer: str) -> None:
    https = Https(36443, issuer, "ops@example.org", "https://127.0.0.1:1/directory")
    layout = Layout("127.0.0.1", 36080, 1, 2, tmp_path / "admin.sock", tmp_path / "a.log", tmp_path / "c.log", https)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(build(layout)))
    done = subprocess.run(
        [find_binary(""), "validate", "--config", str(config)], capture_output=True, text=True, timeout=60, check=False,
        env={"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
