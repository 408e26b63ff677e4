"""A stand-in for the platform's HTTP API, for the tests of the command.

Owns scripted troubles and a record of every call; only as much of the platform as the tests look at.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

JSON = dict[str, Any]
_WATCHED = re.compile(r"/(services|alerts|silences)(/.*)?")


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeApi:
    """`troubles` are answers given first, in order, to writes: (status, headers); "cut" drops the connection."""

    streams: bool = True
    build_ends: str = "succeeded"
    deployment_ends: str = "succeeded"
    deployment: JSON = field(default_factory=dict)  # what else is in it
    snapshot: JSON = field(default_factory=dict)  # what else is in one
    troubles: list[tuple[int, dict[str, str]] | str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    apps: dict[str, JSON] = field(default_factory=dict)
    env: JSON = field(default_factory=lambda: {"A": "1", "PASSWORD": {"secret": True}})
    instances: list[JSON] = field(default_factory=list)
    members: list[JSON] = field(default_factory=list)
    task: JSON = field(
        default_factory=lambda: {
            **dict.fromkeys(("node", "version", "created_by", "created_at", "started_at", "finished_at")),
            "id": 4, "kind": "run", "status": "succeeded", "reason": "exited with code 0", "exit_code": 0,
            "command": "",
        }
    )  # fmt: skip
    replayed: dict[str, JSON] = field(default_factory=dict)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    index: int = 1

    def __post_init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                parts = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                headers = {key.lower(): value for key, value in self.headers.items()}
                call = Call(self.command, parts.path, query, headers, self.rfile.read(size))
                outer.calls.append(call)
                outer._handle(self, call)

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self._any
                raise AttributeError(name)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.method != "GET"]

    def _handle(self, to: BaseHTTPRequestHandler, call: Call) -> None:
        if call.method != "GET" and self.troubles:
            trouble = self.troubles.pop(0)
            if isinstance(trouble, str):
                to.close_connection = True
                to.connection.close()
                return
            self._send(to, trouble[0], {"code": "no_leader", "detail": "no leader", "status": trouble[0]}, trouble[1])
            return
        if call.headers.get("authorization") != "Bearer omni_test" and call.path != "/health":
            problem = {"code": "not_authenticated", "detail": "no or wrong token", "next": "omni login", "status": 401}
            self._send(to, 401, problem)
            return
        if "event-stream" in call.headers.get("accept", "") and self.streams:
            self._stream(to, call)
            return
        status, body = self._answer(call)
        self._send(to, status, body)

    def _send(self, to: BaseHTTPRequestHandler, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(body).encode()
        to.send_response(status)
        kind = "application/json" if status < 400 else "application/problem+json"
        for name, value in {"Content-Type": kind, "Omni-Index": str(self.index), **(headers or {})}.items():
            to.send_header(name, value)
        to.send_header("Content-Length", str(len(raw)))
        to.end_headers()
        to.wfile.write(raw)

    def _stream(self, to: BaseHTTPRequestHandler, call: Call) -> None:
        """Two lines, then the stream is cut once; resumed, the rest and the end."""
        lines = self._lines(call)
        last = call.headers.get("last-event-id")
        rest = lines[int(last) :] if last else lines[:2]
        to.send_response(200)
        to.send_header("Content-Type", "text/event-stream")
        to.send_header("Connection", "close")
        to.end_headers()
        to.close_connection = True
        to.wfile.write(b"retry: 1000\n\n: still here\n\n")
        for line in rest:
            to.wfile.write(f"id: {line['cursor']}\ndata: {json.dumps(line)}\n\n".encode())
        if last:
            to.wfile.write(b'event: end\ndata: "succeeded"\n\n')

    def _lines(self, call: Call) -> list[JSON]:
        texts = ["one", "two \x1b[31mred", "three", "four"]
        return [
            {"cursor": str(i), "at": f"2026-11-22T15:00:0{i}.000Z", "stream": "stdout", "line": text, "instance_id": 5}
            for i, text in enumerate(texts, 1)
        ]

    def _answer(self, call: Call) -> tuple[int, Any]:
        parts = call.path.strip("/").split("/")
        key = call.headers.get("idempotency-key", "")
        if call.method != "GET" and key in self.replayed:
            return 200, self.replayed[key]
        if parts[0] == "app" and len(parts) > 1 and parts[1] != "create":
            status, body = self._app_answer(call, parts)
        else:
            status, body = self._platform_answer(call)
        if call.method != "GET" and status < 300:
            self.replayed[key] = body
            self.index += 1
        return status, body

    def _platform_answer(self, call: Call) -> tuple[int, Any]:
        if call.path == "/app/create":
            name = call.json["name"]
            self.apps[name] = {"id": len(self.apps) + 1, "name": name, "status": "created", "instances": 1, "urls": []}
            return 201, self.apps[name]
        if call.path == "/app":
            items = list(self.apps.values())
            at = int(call.query.get("cursor", 0))
            following = f"/app?cursor={at + 2}" if at + 2 < len(items) else None
            return 200, {"items": items[at : at + 2], "next": following, "previous": None}
        if call.path == "/events":
            same = {"kind": "app.scaled", "object": {"type": "app", "id": 3}, "actor": "token:me", "cause": "scale"}
            events = [{"id": f"{6 + i}.0", "at": f"2026-11-22T15:00:0{i}.000Z", "change": {}, **same} for i in (2, 1)]
            events[1]["change"] = {"instances": [1, 2]}
            return 200, {"items": events, "next": None, "previous": None}
        if call.path == "/nodes":
            capacity = {"memory_mb": 1000, "cpu": 2}
            node = {"id": 1, "name": "127.0.0.1-8000", "status": "ready", "capacity": capacity, "instances": 3}
            return 200, {"items": [node], "next": None, "previous": None}
        if call.path == "/cluster/status":
            return 200, {
                "cluster_id": "c",
                "leader": "127.0.0.1:8000",
                "epoch": 3,
                "write_index": 9,
                "members": self.members,
            }
        if call.path == "/cluster/transfer":
            return 200, {"leader": "127.0.0.1:8001", "former": "127.0.0.1:8000", "to": call.json.get("to")}
        if call.path == "/cluster/members" and call.method == "POST":
            host, port = call.json["address"], call.json["port"]
            return 200, {"id": f"{host}-{port}", "address": f"{host}:{port}"}
        if call.path.startswith("/cluster/members/"):
            return 204, None
        if parts := _WATCHED.fullmatch(call.path):
            return self._watched_answer(call, parts[1], parts[2] or "")
        if call.path == "/health":
            return 200, {"status": "healthy", "parts": {"database": {"status": "up", "latency_ms": 0.2}}}
        return 404, {"code": "not_found", "detail": f"no {call.path}", "status": 404}

    def _watched_answer(self, call: Call, kind: str, rest: str) -> tuple[int, Any]:
        """One service, its alert, one silence."""
        service = {"id": 1, "name": "db", "state": "unhealthy", "state_since": "2026", "severity": "critical",
                   "owner": "ops", "detail": "refused", "source": "api", "flapping": False, "alert": 3,
                   "check": {"type": "tcp", "host": "10.0.0.5", "port": 3306}, "interval_s": 10.0, "timeout_s": 3.0,
                   "depends_on": [], "remedy": None, "maintenance": False, "maintenance_until": None}  # fmt: skip
        said = {"node": "n1", "outcome": "failing", "from": "2026", "until": "2027", "checks": 3, "latency_ms": None,
                "detail": "refused"}  # fmt: skip
        alert = {"id": 3, "service": {"id": 1, "name": "db"}, "severity": "critical", "status": "open",
                 "silenced": False, "opened_at": "2026", "resolved_at": None, "acknowledged_by": None,
                 "affected": ["shop"], "detail": "refused"}  # fmt: skip
        silence = {"id": 5, "pattern": "db", "reason": "moving", "starts_at": "2026", "ends_at": "2027",
                   "created_by": "token:me"}  # fmt: skip
        one = {"services": service, "alerts": alert, "silences": silence}[kind]
        given = call.json if call.body else {}
        if call.method == "DELETE" and kind == "services":
            return 204, None
        if call.method != "GET":
            return 200, one | given | ({"acknowledged_by": "token:me"} if kind == "alerts" else {})
        if rest.endswith("/checks"):
            return 200, {"items": [said], "next": None, "previous": None}
        return 200, {**one, "vantage": [said]} if rest else {"items": [one], "next": None, "previous": None}

    def _app_answer(self, call: Call, parts: list[str]) -> tuple[int, Any]:
        app = self.apps.get(parts[1])
        if app is None:
            return 404, {
                "code": "app_not_found",
                "detail": f"no app {parts[1]}",
                "next": "omni apps list",
                "status": 404,
            }
        verb = parts[2] if len(parts) > 2 else ""
        build = {"id": 7, "version": app.get("version"), "status": self.build_ends, "release_id": 3, "error": None}
        if self.build_ends == "failed":
            build["error"] = {"code": "no_builder", "detail": "no Procfile found"}
        if verb == "" and call.method == "PATCH":
            app |= call.json
            return 200, app
        if verb == "" and call.method == "DELETE":
            del self.apps[parts[1]]
            return 202, app
        if verb == "info":
            counts = {"desired": app["instances"], "healthy": app["instances"]}
            return 200, {**app, "instances_summary": counts, "version": {"current": app.get("version")}}
        if verb == "release" and parts[4] == "upload":
            app |= {"version": parts[3], "urls": [f"http://{app['name']}.localhost:8080"]}
            app["deployment"] = {"id": 9, "release_id": 3, "status": "rolling"}
            self.uploaded[parts[3]] = call.body
            return 202, {**build, "version": parts[3], "status": "queued"}
        if verb == "builds" and len(parts) == 5:
            after = int(call.query.get("cursor", 0))
            ended = "succeeded" if after == 4 else None
            return 200, {"items": self._lines(call)[after : after + 3], "next": None, "previous": None, "ended": ended}
        if verb == "builds":
            return 200, build if len(parts) == 4 else {"items": [build], "next": None, "previous": None}
        steps = [{"what": "place", "reason": "1 of 1 missing", "at": "2026-11-22T15:00:00Z", "instance_id": 5}]
        deployment = {"id": 9, "status": self.deployment_ends, "steps": steps, "release_id": 3, **self.deployment}
        if verb == "deployments":
            return self._deployment_answer(call, parts, deployment)
        if verb in ("rollback", "release", "restart", "start", "stop"):
            return 202, {**deployment, "status": "pending"}
        if verb == "run":
            self.task |= {"command": call.json["command"], "env": call.json.get("env")}
            return 202, self.task
        if verb == "snapshots" or parts[-1] in ("snapshots", "restores") or parts[-2] == "restores":
            return self._snapshot_answer(call, parts)
        if verb == "volumes":
            return self._volume_answer(call, parts)
        if verb == "tasks" and len(parts) == 5 and parts[4] == "cancel":
            return 202, self.task
        if verb == "tasks":
            return self._task_answer(call, parts)
        if verb == "cron":
            entry = {"name": "tidy", "schedule": "@daily", "time_zone": "UTC", "paused": False, "next_due_at": "2026",
                     "overlap": "skip", "command": "x", "process_type": None}  # fmt: skip
            run = {"due_at": "2026", "status": "started", "task_id": 4, "task_status": "running", "exit_code": None,
                   "reason": "due"}  # fmt: skip
            many = {"items": [run if parts[-1] == "runs" else entry], "next": None, "previous": None}
            return 200, many if call.method == "GET" else run if parts[-1] == "run" else {
                **entry,
                **(call.json if call.body else {}),
            }
        if verb == "scale":
            app["instances"] = call.json.get("instances", 1)
            app["processes"] = call.json.get("processes", {})
            return 202, app
        if verb == "config":
            if call.method == "PATCH":
                self.env |= call.json["env"]
            return 200, {"env": self.env, "revision": 1}
        items = self._lines(call) if verb == "logs" else self.instances
        return 200, {"items": items, "next": None, "previous": None}

    def _snapshot_answer(self, call: Call, parts: list[str]) -> tuple[int, Any]:
        """Each look finds it a step further."""
        shown = {"id": 3, "volume": "data", "status": "succeeded", "consistency": "stopped", "content_bytes": 4096,
                 "files": 2, "skipped": 1, "created_at": "2026-11-22T15:00:00Z", "reason": "", "detail": "",
                 **self.snapshot}  # fmt: skip
        if call.method == "POST":
            return 202, {**shown, **call.json, "status": "pending"}
        many = {"items": [shown], "next": None, "previous": None}
        return 200, many if parts[-1] in ("snapshots", "restores") else shown

    def _volume_answer(self, call: Call, parts: list[str]) -> tuple[int, Any]:
        volume = {"name": "data", "path": "/data", "node": "n1", "status": "ready", "size_bytes": 4096}
        if call.method == "POST":
            return 201, volume | call.json
        return 200, volume if len(parts) == 4 else {"items": [volume], "next": None, "previous": None}

    def _task_answer(self, call: Call, parts: list[str]) -> tuple[int, Any]:
        if len(parts) == 5:
            return 200, {"items": self._lines(call), "next": None, "previous": None, "ended": "succeeded"}
        return 200, self.task if len(parts) == 4 else {"items": [self.task], "next": None, "previous": None}

    def _deployment_answer(self, call: Call, parts: list[str], shown: JSON) -> tuple[int, Any]:
        if len(parts) == 3:
            return 200, {"items": [shown], "next": None, "previous": None}
        if call.method == "GET":
            return 200, shown
        if self.deployment.get("over"):
            return 409, {"code": "deployment_ended", "detail": "It is over.", "next": "omni rollback", "status": 409}
        verb = parts[4]
        self.deployment |= {"phase": {"pause": "paused", "cancel": "reverting"}.get(verb, "rolling")}
        if verb in ("resume", "promote"):
            self.deployment = {}  # and by the time that somebody asks it has ended
        return 202, {**shown, **self.deployment, "status": "rolling"}

    def names_in(self, version: str) -> set[str]:
        with tarfile.open(fileobj=io.BytesIO(self.uploaded[version])) as archive:
            return set(archive.getnames())

    def sha256(self, version: str) -> bytes:
        return hashlib.sha256(self.uploaded[version]).digest()
