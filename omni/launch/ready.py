"""Waits until the nodes answer, then prints the table and the next step: `python -m omni.launch.ready PLAN`.

Owns what a newcomer reads first. Looks at the platform from outside only, by HTTP.
"""

from __future__ import annotations

import json
import shlex
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from omni.launch import http
from omni.launch.screen import Screen, last_lines

_TIMEOUT_S = 150.0
_PAUSE_S = 0.1
_SPEAK_EVERY_S = 5.0
_ADMIN_S = 10.0  # a token that was revoked since is never known again
_REACHED_AS_LOCALHOST = ("127.0.0.1", "0.0.0.0", "localhost", "::1", "::")  # noqa: S104 - compared, not bound


def main(arguments: list[str]) -> int:
    plan: dict[str, Any] = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    view = Screen()
    view.begin("nodes", f"waiting for {len(plan['here'])}")
    waiting = {member["id"]: member for member in plan["here"]}
    deadline = time.monotonic() + _TIMEOUT_S
    speak = time.monotonic() + _SPEAK_EVERY_S
    while waiting and time.monotonic() < deadline:
        waiting = {key: member for key, member in waiting.items() if not is_ready(member)}
        if waiting and time.monotonic() > speak:
            view.say("still waiting for " + ", ".join(waiting))
            speak = time.monotonic() + _SPEAK_EVERY_S
        time.sleep(_PAUSE_S if waiting else 0)
    view.end("all ready" if not waiting else f"{len(waiting)} of {len(plan['here'])} not ready")
    if not waiting:
        _wait_for_ingress(plan, view, deadline)
        _wait_for_admin(plan, min(deadline, time.monotonic() + _ADMIN_S))
    print(table(plan))
    for member in waiting.values():
        log = Path(plan["state"]) / f"node-{member['port']}" / "log"
        print(f"{member['id']} is not ready; the end of {log}:", *last_lines(str(log)), sep="\n")
    if not waiting:
        print(next_steps(plan), flush=True)
    return 1 if waiting else 0


def is_ready(member: dict[str, Any]) -> bool:
    return http.call("GET", member["url"] + "/health/ready", timeout_s=3.0).status == 200


def _wait_for_ingress(plan: dict[str, Any], view: Screen, deadline: float) -> None:
    address, port, _ = next(entry for entry in plan["ports"] if entry[2] == "ingress")
    view.begin("ingress", "waiting")
    where = ("127.0.0.1" if address == "0.0.0.0" else address, port)  # noqa: S104 - compared, not bound
    while time.monotonic() < deadline:
        try:
            socket.create_connection(where, timeout=1.0).close()
        except OSError:
            time.sleep(_PAUSE_S)
            continue
        view.end(f"listening on {address}:{port}")
        return
    view.end("not listening")


def _wait_for_admin(plan: dict[str, Any], deadline: float) -> None:
    """Followers are ready once a leader is elected; the first one to lead has yet to write the admin's token down."""
    while _status(plan).status == 401 and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)


def _status(plan: dict[str, Any]) -> http.Answer:
    token = Path(plan["admin_token_file"]).read_text(encoding="utf-8").strip()
    headers = {"Authorization": f"Bearer {token}"}
    return http.call("GET", plan["here"][0]["url"] + "/cluster/status", headers=headers)


def table(plan: dict[str, Any]) -> str:
    """Node, address, role and state of every member."""
    status = _status(plan).json()
    said = {str(entry.get("id")): entry for entry in status.get("members", [])}
    rows = [("node", "address", "role", "state")]
    for member in plan["members"]:
        entry = said.get(member["id"], {})
        leads = status.get("leader") in (member["netloc"], member["id"])
        role = entry.get("role") or ("leader" if leads else "unknown")
        rows.append((member["id"], member["netloc"], role, "ready" if is_ready(member) else "not ready"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n" + "\n".join(lines) + "\n"


def next_steps(plan: dict[str, Any]) -> str:
    """What to copy next."""
    url = plan["here"][0]["url"]
    token_file = plan["admin_token_file"]
    folder = shlex.quote(str(Path(plan["project"]) / "examples" / "hello"))
    auth = '-H "Authorization: Bearer $TOKEN"'
    gzipped = "-H 'Content-Type: application/gzip'"
    open_app = _open_app(plan)
    return f"""Next: upload an example app and open it

  TOKEN=$(cat {shlex.quote(token_file)})
  curl {auth} -H 'Content-Type: application/json' -d '{{"name": "hello"}}' {url}/app/create
  tar -cz -C {folder} . | curl {auth} {gzipped} --data-binary @- {url}/app/hello/release/1/upload
  {open_app}

  console      {url}/admin/  (user admin, password in {Path(token_file).with_name("admin.password")})
  API          {url}/docs
  admin token  {token_file}
  stop         Ctrl-C, or: kill $(cat {shlex.quote(str(Path(plan["state"]) / "start.pid"))})
"""


def _open_app(plan: dict[str, Any]) -> str:
    """How to open `hello`: by its name where that leads to the ingress, else by the ingress's own address."""
    url = plan["ingress_url"].replace("://", "://hello.", 1)
    address, port, _ = next(entry for entry in plan["ports"] if entry[2] == "ingress")
    name = urlsplit(url).hostname or ""
    if name.endswith(".localhost") and address not in _REACHED_AS_LOCALHOST:
        return f"curl -H 'Host: {name}' http://{address}:{port}/"
    return f"curl {url}/"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
