"""For tests and benches: real Raft processes on loopback, with clients, pages and kills.

Owns the processes that it started and ends them. Ports are found free, never assumed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from consensus.lease import ConsensusUnavailable
from consensus.raft.client import RaftClient
from consensus.raft.page import RaftPage, RaftView

PROJECT = Path(__file__).resolve().parents[2]
SECRET = "a secret of real members, long enough"  # noqa: S105 - made up for tests


class RealMembers:
    """`size` members; `spare` more are listed by their own configuration only, and join later."""

    def __init__(self, folder: Path, size: int = 3, *, spare: int = 0, consensus: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.ports = free_ports(size + spare)
        self.founders = self.ports[:size]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._clients: dict[int, RaftClient] = {}
        self._pages: dict[int, RaftPage] = {}
        self.consensus = consensus or {}
        (folder / "cluster.secret").write_text(SECRET)
        (folder / "cluster.secret").chmod(0o600)
        for port in self.ports:
            listed = self.founders if port in self.founders else [*self.founders, port]
            self.configure(port, listed)

    def __enter__(self) -> RealMembers:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()

    def configure(self, port: int, listed: list[int]) -> None:
        keys = {
            "instances": [{"port": other, "address": "127.0.0.1"} for other in listed],
            "raft_port_offset": 1,
            "state_dir": str(self.folder),
            "consensus": self.consensus,
        }
        (self.folder / f"config-{port}.json").write_text(json.dumps(keys))

    def start(self, *ports: int) -> None:
        for port in ports or self.founders:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("OMNI_")}
            environment |= {name: value for name, value in os.environ.items() if name == "OMNI_TEST_RUN"}
            environment["OMNI_CONFIG"] = str(self.folder / f"config-{port}.json")
            environment["OMNI_NODE"] = self.id(port)
            environment["OMNI_TEST_RAFT_FAULTS"] = "1"
            with (self.folder / f"log-{port}").open("ab") as log:
                self.processes[port] = subprocess.Popen(
                    [sys.executable, "-m", "consensus.raft"], env=environment, cwd=PROJECT, stdout=log, stderr=log
                )

    def kill(self, port: int) -> None:
        self.processes[port].kill()
        self.processes[port].wait()

    def stop(self, port: int) -> int:
        self.processes[port].terminate()
        return self.processes[port].wait(10)

    def freeze(self, port: int) -> None:
        self.processes[port].send_signal(signal.SIGSTOP)

    def thaw(self, port: int) -> None:
        self.processes[port].send_signal(signal.SIGCONT)

    def id(self, port: int) -> str:
        return f"127.0.0.1-{port}"

    def log(self, port: int) -> str:
        return (self.folder / f"log-{port}").read_text()

    def files(self, port: int) -> Path:
        return self.folder / f"node-{port}" / "raft"

    def client(self, port: int) -> RaftClient:
        return self._clients.setdefault(port, RaftClient(str(self.folder / "run" / f"raft-{port}.sock")))

    def view(self, port: int) -> RaftView | None:
        page = self._pages.setdefault(port, RaftPage(self.folder / f"node-{port}" / "raft.page"))
        with contextlib.suppress(ConsensusUnavailable):
            return page.view()
        return None

    def alive(self) -> list[int]:
        return [port for port, process in self.processes.items() if process.poll() is None]

    def leaders(self) -> list[int]:
        """Established, with a lease."""
        return [port for port in self.processes if (view := self.view(port)) and view.established]

    def leader(self, seconds: float = 30.0, among: list[int] | None = None) -> int:
        wait_for(lambda: bool(set(self.leaders()) & set(among or self.ports)), seconds, self.logs)
        return next(port for port in self.leaders() if port in (among or self.ports))

    def settled(self) -> bool:
        """One leader, everybody alive is connected to it and has caught up."""
        alive, leaders = self.alive(), self.leaders()
        if len(leaders) != 1 or any(self.view(port) is None for port in alive):
            return False
        with contextlib.suppress(ConsensusUnavailable):
            status = self.client(leaders[0]).status()
            rows = {row["id"]: row for row in status["members"]}
            mine = [rows.get(self.id(port)) for port in alive]
            return all(row and row["reachable"] and row["match_lag"] == 0 for row in mine) and bool(
                status["state"]["cluster"]
            )
        return False

    def settle(self, seconds: float = 60.0) -> int:
        wait_for(self.settled, seconds, self.logs)
        return self.leaders()[0]

    def logs(self) -> str:
        return "\n".join(f"--- {port}\n{self.log(port)[-1500:]}" for port in self.processes)


def wait_for(holds: Callable[[], bool], seconds: float, told: Callable[[], str] = str) -> float:
    """Until it holds; how long that took. AssertionError after so many seconds."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"not within {seconds:g} s\n{told()}")
        time.sleep(0.0005)
    return time.monotonic() - begun


def holds_for(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether it holds all the time, looked at again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not holds():
            return False
        time.sleep(0.001)
    return True


def free_ports(count: int) -> list[int]:
    """Ports whose next one is free too: for HTTP and for Raft."""
    return [port for port, _ in zip(_pairs(), range(count), strict=False)]


def _pairs() -> Iterator[int]:
    seen: set[int] = set()
    for port in range(24_200 + os.getpid() % 1000 * 4, 32_000, 2):
        with socket.socket() as one, socket.socket() as two, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + 1))
            if port not in seen:
                seen.add(port)
                yield port
