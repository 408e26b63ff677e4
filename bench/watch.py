"""Does the console tell the truth while things break? `python -m bench.watch [--minutes 30] [--record FILE]`.

A platform of three nodes on a database of its own, ten apps (two broken on purpose), five internal services: a MariaDB,
a Valkey, an HTTP server, a TLS endpoint, a heartbeat job. By a schedule things are killed and come back: services, a
node, the leader, the platform's database. Every two seconds API and console are asked at a random member, and what they
say is held against what is true. At the end: was anything said that was not so, did each trouble have one alert, told
once by webhook and by mail, and did the remedies run?
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import apps
from bench.harness import report, table, wait_for
from bench.watch_platform import INTERVAL_S, WatchedPlatform, free_block
from bench.watch_record import Recorder
from bench.watch_things import definitions

SLACK_S = 14.0
GOOD, BROKEN = [f"good-{number}" for number in range(1, 9)], ["crashes", "sick"]
_CRASHES = b"import sys, time\ntime.sleep(1)\nprint('it cannot go on', flush=True)\nsys.exit(3)\n"
_SICK = b"""import http.server, os
class Sick(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Sick).serve_forever()
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.watch")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--ports", type=int, default=0, help="first of 300 ports; default: any")
    parser.add_argument("--record", type=Path, default=Path(tempfile.gettempdir(), "omni-watch.jsonl"))
    parser.add_argument("--keep", action="store_true", help="write the verdict to bench/RESULTS.md")
    options = parser.parse_args()
    options.record.unlink(missing_ok=True)
    with Watch(options.ports or free_block(), options.record) as watch:
        watch.prepare()
        watch.go(options.minutes * 60)
        lines = watch.verdict()
    told = report if options.keep else (lambda _name, said: print("\n".join(said)))
    told(f"Watch: {options.minutes:g} minutes in which things were killed", lines)


class Watch(WatchedPlatform):
    """The schedule, and what is to be thought of what was seen."""

    def __init__(self, first: int, record: Path) -> None:
        super().__init__(first)
        self.record = record
        self.expected: Counter[str] = Counter()  # alerts by service
        self.late: list[str] = []

    def prepare(self) -> None:
        """Ten apps, five services, and everything well."""
        hello = apps.folder(apps.HELLO)
        broken = {"crashes": _CRASHES, "sick": _SICK}
        with self.client(insist=True) as client:
            for name in GOOD:
                apps.create(client, name)
                apps.upload(client, name, apps.pack(hello))
            for name, program in broken.items():
                apps.create(client, name, health_check={"type": "http", "path": "/"} if name == "sick" else {})
                apps.upload(client, name, apps.pack({"Procfile": b"web: exec python app.py\n", "app.py": program}))
            for name in GOOD:
                apps.wait_healthy(client, name, 1)
            for one in definitions(self.ports, INTERVAL_S)[1:]:
                apps.ask(client.post("/services", json=one), 201)
        self.recorder = Recorder(self.members, self.token, (self.state / "admin.password").read_text().strip(),
                                 self.truth, self._patience, self.record)  # fmt: skip
        names = ("orders-db", "cache", "front", "site", "job")
        wait_for(lambda: all(self.says(name) == "healthy" for name in names), "five healthy services", within_s=300)
        for name in names:
            self.truth.say(name, "healthy")
        self.recorder.start()
        self._stack.callback(self.recorder.stop)

    def _patience(self, name: str) -> float:
        """Three checks or heartbeats that fail, one more on its way, a time-out; then it is to be told."""
        return INTERVAL_S * 4 + 3.0 + SLACK_S

    # what is said

    def alerts(self, name: str) -> list[dict[str, Any]]:
        return [one for one in self.recorder.alerts.values() if one["service"]["name"] == name]

    def _come(self, what: str, condition: Callable[[], bool], within_s: float) -> None:
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > within_s:
                self.late.append(f"{what}: not within {within_s:.0f} s")
                self.recorder.note(f"MISSED: {what}")
                return
            time.sleep(0.5)
        self.recorder.note(f"{what} after {time.monotonic() - begun:.1f} s")

    def _turns(self, name: str, state: str) -> None:
        self._come(f"{name} is said to be {state}", lambda: self.says(name) == state, self._patience(name))

    # what happens

    def go(self, seconds: float) -> None:
        steps = [self._kill_cache, self._kill_database, self._kill_node, self._kill_leader, self._expire,
                 self._hush_job, self._database_away]  # fmt: skip
        begun = time.monotonic()
        for number, step in enumerate(steps):
            due = begun + seconds * (number + 0.3) / len(steps)
            time.sleep(max(0.0, due - time.monotonic()))
            self.recorder.note(f"--- {(step.__doc__ or '').strip().splitlines()[0]}")
            step()
        time.sleep(max(0.0, begun + seconds - time.monotonic()))
        self._come("every alert is resolved", self._all_resolved, 90)
        self._come("every notice is sent", self._all_told, 60)
        self.recorder.stop()

    def _kill_cache(self) -> None:
        """The Valkey is killed; its remedy calls a webhook, which starts it again."""
        self.truth.say("cache", "unhealthy")
        self.cache.kill()
        self.expected["cache"] += 1
        self._come("cache is mended and well", lambda: self.says("cache") == "healthy" and self._ran("cache"),
                   2 * self._patience("cache") + 30)  # fmt: skip

    def _kill_database(self) -> None:
        """The MariaDB is killed, and the HTTP server fails with it: one alert, the database's."""
        self.database.kill()
        for name in ("orders-db", "front"):
            self.truth.say(name, "unhealthy")
        self.expected["orders-db"] += 1
        self._turns("orders-db", "unhealthy")
        self._turns("front", "unhealthy")
        self._come("the database's alert names what fails with it", lambda: any(
            "front" in one["affected"] for one in self.alerts("orders-db")), 30)  # fmt: skip
        time.sleep(10)
        self.database.start()
        for name in ("orders-db", "front"):
            self.truth.say(name, "healthy")
        for name in ("orders-db", "front"):
            self._turns(name, "healthy")

    def _kill_node(self) -> None:
        """A node that does not lead is killed and stays away for a while: no service is worse for it."""
        self._kill(next(number for number in range(3) if number != self.leader()), 25)

    def _kill_leader(self) -> None:
        """The leader is killed: what is said of services stays true, and nothing is told twice."""
        self._kill(self.leader(), 15)

    def _kill(self, member: int, seconds: float) -> None:
        self.recorder.fine.discard(self.members[member])
        self.kill_node(member, seconds)
        self._come(f"node {self.first + member} is back", lambda: self.ready(member), 60)
        self.recorder.fine.add(self.members[member])

    def _expire(self) -> None:
        """The certificate is good for 20 days only, then for 2: a warning, then unhealthy; then it is renewed."""
        self.expected["site"] += 1
        for days, state in ((20, "degraded"), (2, "unhealthy"), (90, "healthy")):
            self.tls.renew(days)
            self.truth.say("site", state)
            self._turns("site", state)

    def _hush_job(self) -> None:
        """The job sends no heartbeat for a while; its remedy runs a task in an app."""
        self.job.beats = False
        self.truth.say("job", "unhealthy")
        self.expected["job"] += 1
        self._turns("job", "unhealthy")
        self._come("the task of the remedy ended well", lambda: self._ran("job"), 90)
        self.job.beats = True
        self.truth.say("job", "healthy")
        self._turns("job", "healthy")

    def _database_away(self) -> None:
        """The platform's own database is killed: services are readable and followed all the same."""
        self.platform_db.stop(kill=True)
        self.truth.say("cache", "unhealthy")
        self.cache.kill()
        self.truth.say("job", None)  # its heartbeats cannot be kept meanwhile
        self.expected["cache"] += 1
        self._turns("cache", "unhealthy")
        self._come("the platform's dead database is told while it is dead", self._database_told, 60)
        self.platform_db.start()
        self._come("cache is mended", lambda: self.truth.now["cache"][1] == "healthy", self._patience("cache") + 30)
        self._come(
            "cache is mended and well", lambda: self.says("cache") == "healthy", 2 * self._patience("cache") + 30
        )
        self._turns("job", "healthy")
        self.truth.say("job", "healthy")

    def _database_told(self) -> bool:
        return any(one["data"]["service"]["name"] == "platform:database" for one in self.receiver.told)

    def _ran(self, name: str) -> bool:
        return any(one["status"] == "succeeded" for one in self.remedies(name))

    def _all_resolved(self) -> bool:
        return bool(self.recorder.alerts) and all(one["status"] == "resolved" for one in self.recorder.alerts.values())

    def _all_told(self) -> bool:
        """Nobody is told that an alert is over that only its cause has now."""
        told = {(one["type"], one["data"]["key"]) for one in self.receiver.told}
        return all(("alert.opened", one["key"]) in told and ("alert.resolved", one["key"]) in told
                   for one in self.recorder.alerts.values() if one["resolution"] != "grouped")  # fmt: skip

    # what is to be thought of it

    def verdict(self) -> list[str]:
        alerts = Counter(one["service"]["name"] for one in self.recorder.alerts.values()
                         if not one["service"]["name"].startswith("platform:"))  # fmt: skip
        parts = Counter(one["service"]["name"] for one in self.recorder.alerts.values()) - alerts
        told = Counter((one["type"], one["data"]["key"]) for one in self.receiver.told)
        runs = {name: self.remedies(name) for name in ("cache", "front", "job")}
        overlaps = sum(_overlap(found) for found in runs.values())
        states = self._apps()
        judged, lies, by_outcome = self.recorder.judged, self.recorder.lies, Counter[str]()
        for name, found in runs.items():
            by_outcome.update(f"{name} {one['status']}" for one in found)
        rows: list[tuple[str, str, bool]] = [
            ("the truth was told", f"{judged - len(lies)} of {judged} statements", not lies and judged > 100),
            ("every change was told in time", "; ".join(self.late) or "yes", not self.late),
            ("each trouble had one alert", _counted(alerts), alerts == self.expected),
            ("alerts of the platform's own parts", _counted(parts) or "none", all(n <= 2 for n in parts.values())),
            ("every alert resolved", _counted(Counter(one["status"] for one in self.recorder.alerts.values())),
             self._all_resolved()),
            ("told once by signed webhook, after a first try that was refused",
             f"{len(told)} messages, {self.receiver.forged} forged",
             bool(told) and max(told.values()) == 1 and not self.receiver.forged),
            ("told by mail", f"{len(self.mail.mails)} mails", len(self.mail.mails) == len(told)),
            ("remedies ran", _counted(by_outcome),
             all(self._ran(name) for name in ("cache", "job"))),
            ("never two remedies at once", f"{overlaps} overlaps", overlaps == 0),
            ("apps: the good ones run, the broken ones do not", _counted(Counter(states.values())),
             all(states[name] == "running" for name in GOOD) and all(states[name] != "running" for name in BROKEN)),
            ("looks", f"{self.recorder.looks}; without an answer: API {self.recorder.unanswered['api']}, console "
             f"{self.recorder.unanswered['console']}", self.recorder.unanswered["api"] < self.recorder.looks / 5),
        ]  # fmt: skip
        lines = table(
            ["promise", "seen", ""], [[what, said, "kept" if kept else "BROKEN"] for what, said, kept in rows]
        )
        lines += [f"- {lie.at_s:.0f} s: {lie.by} said {lie.service} is {lie.said}, and it was {lie.was}"
                  for lie in self.recorder.lies[:20]]  # fmt: skip
        return [*lines, "", f"Every look: {self.record}"]

    def _apps(self) -> dict[str, str]:
        with self.client(self.leader()) as client:
            return {one["name"]: one["status"] for one in client.get("/app?limit=500").json()["items"]}


def _overlap(runs: list[dict[str, Any]]) -> int:
    ordered = sorted(runs, key=lambda one: str(one["started_at"]))
    return sum(not a["finished_at"] or b["started_at"] < a["finished_at"]
               for a, b in itertools.pairwise(ordered))  # fmt: skip


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items()))


if __name__ == "__main__":
    main()
