"""The first admin: org, user and token from the files that `start.sh` made (DECISIONS 5).

Owns when that is done: by each new leader, which in all but the first case finds that there is nothing to do, by two
small queries and without the gate.
"""

from __future__ import annotations

import logging

from accounts import services as accounts
from consensus import gate
from omni.kernel.config import Config
from omni.kernel.context import system

_log = logging.getLogger("omni.daemon")


def bootstrap(config: Config) -> None:
    """Idempotent. Raises what the gate raises."""
    token_file, password_file = config.state / "admin.token", config.state / "admin.password"
    if not token_file.exists():
        _log.warning("no admin.token in the state directory: nobody was bootstrapped")
        return
    token = token_file.read_text().strip()
    if accounts.is_bootstrapped(token):
        return
    password = password_file.read_text().strip() if password_file.exists() else ""
    gate.run(
        lambda tx: accounts.bootstrap(tx, admin_token=token, admin_password=password),
        actor=system("bootstrap"),
        cause="first start",
    )
