"""`python -m agent.ingress --config FILE`: the ingress as a process.

Owns the order of starting and stopping. SIGTERM stops Caddy too (open requests get some seconds to end). A kill leaves
Caddy serving from what it last knew; the next start adopts it. `--stop` ends a Caddy that was left so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx

from agent import tls
from agent.ingress.caddy_config import Layout
from agent.ingress.caddy_process import CaddyError, CaddyProcess, find_binary, stop
from agent.ingress.caddy_record import read_record
from agent.ingress.configuring import Configuring
from agent.ingress.counting import RequestCounting
from agent.ingress.draining import Draining
from agent.ingress.follow import Members, RouteFollower
from agent.ingress.pages import PageServer
from agent.ingress.probe import Prober
from agent.ingress.resolver import Answers, Responder
from agent.ingress.settings import Settings, SettingsError, load
from agent.ingress.table import RouteTable, write_json
from observing import journal

log = logging.getLogger("agent.ingress")

PART_PAUSE_S = 1.0


@contextlib.contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Two processes on one state directory would fight over one Caddy."""
    with (state_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CaddyError(f"another ingress runs on {state_dir}") from error
        yield


async def bind(start: Callable[[int], Awaitable[int]], wanted: int) -> int:
    """On the port of last time, because a Caddy that we left behind asks there; on any other when it is taken."""
    try:
        return await start(wanted)
    except OSError:
        return await start(0)


def stored_ports(file: Path) -> tuple[int, int]:
    try:
        stored = json.loads(file.read_text())
        return int(stored["dns"]), int(stored["pages"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


async def keep_up(part: Callable[[], Awaitable[None]]) -> None:
    """Run a part for ever: a fault in one (say, in counting) must not take the resolver down with it."""
    while True:
        try:
            await part()
        except Exception:
            log.exception("a part of the ingress failed and is started again")
        await asyncio.sleep(PART_PAUSE_S)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    state = settings.state_dir
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)

    table = RouteTable(state / "routes.json")
    table.load()
    prober = Prober(table.targets)
    pages = PageServer(table)
    dns_port, page_port = stored_ports(state / "ports.json")
    page_port = await bind(pages.start, page_port)
    answers = Answers(table.lookup, prober.answering, prober.ip_of, page_port)
    responder = Responder(answers)
    dns_port = await bind(responder.start, dns_port)
    table.on_change(answers.forget)
    prober.on_change(answers.forget)
    write_json(state / "ports.json", {"dns": dns_port, "pages": page_port})

    access_log = state / "access.log"
    layout = Layout(
        settings.address, settings.port, dns_port, page_port, state / "run", access_log, state / "caddy.log",
        settings.https,
    )  # fmt: skip
    caddy = CaddyProcess(find_binary(settings.caddy_bin), state)
    configuring = Configuring(caddy, layout, table)
    how = await configuring.begin()
    log.info("ingress serves on %s:%s (caddy %s, %s hosts known)", settings.address, settings.port, how, len(table))

    async with httpx.AsyncClient(
        headers={"Authorization": f"Bearer {settings.token}"}, trust_env=False, follow_redirects=False,
        verify=tls.context(settings.tls) or True,
    ) as client:  # fmt: skip
        follower = RouteFollower(client, Members(settings.control_plane), table, settings.wait_s)
        counting = RequestCounting(
            client,
            Members(settings.control_plane),
            settings.node,
            access_log,
            state / "counting.json",
            settings.window_s,
        )
        draining = Draining(client, Members(settings.control_plane), settings.node, table.leaving, caddy.upstreams)
        parts: list[Callable[[], Awaitable[None]]] = [
            follower.run, prober.run, caddy.watch, configuring.run, counting.run, draining.run,
        ]  # fmt: skip
        tasks = [asyncio.create_task(keep_up(part)) for part in parts]
        await stopping.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await caddy.stop()
        await counting.read()
        await counting.save()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agent.ingress", description="The ingress of Omni Orchestrator.")
    parser.add_argument("--config", type=Path, required=True, help="ingress.json")
    parser.add_argument("--stop", action="store_true", help="stop a Caddy that a killed ingress left behind, and exit")
    options = parser.parse_args(argv)
    try:
        settings = load(options.config)
        journal.configure("ingress", settings.log_level.upper())
        logging.getLogger("httpx").setLevel(logging.WARNING)
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.state_dir.chmod(0o700)
        if options.stop:
            record = read_record(settings.state_dir)
            if record is not None:
                asyncio.run(stop(record))
            return 0
        with only_one(settings.state_dir), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(settings))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except CaddyError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is: an answer of the resolver takes half as long."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
