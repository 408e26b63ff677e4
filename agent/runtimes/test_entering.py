"""Commands in a running instance: among its own processes, with its rights and no more, and gone when asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent import procfs
from agent.runtimes.base import Handle, Refused, Runtime, Unavailable
from agent.runtimes.entering import STDERR, STDOUT, Entered, Entry
from agent.runtimes.test_contract import BareBench, Bench, FakeBench, ProcessBench
from sandbox import identity
from sandbox.probe import probe

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
Story = Callable[[Runtime, Handle, Bench], Awaitable[None]]


async def everything(entered: Entered) -> tuple[bytes, bytes]:
    found = {STDOUT: b"", STDERR: b""}
    async with asyncio.timeout(Bench.patience_s):
        while (piece := await entered.read()) is not None:
            found[piece[0]] += piece[1]
    return found[STDOUT], found[STDERR]


async def said(runtime: Runtime, bench: Bench, handle: Handle, line: str, tty: bool = False) -> tuple[str, int | None]:
    entered = await runtime.enter(bench.launch(1), handle, Entry(("sh", "-c", line), tty))
    try:
        out, err = await everything(entered)
        assert err == b"" or not tty
        return (out + err).decode(), await entered.wait()
    finally:
        await entered.end()


def run(bench: Bench, story: Story) -> None:
    async def whole() -> None:
        runtime = bench.driver()
        handle = await runtime.start(bench.launch(1))
        async with asyncio.timeout(Bench.patience_s):
            while not bench.ready(1):
                await asyncio.sleep(0.02)
        try:
            await story(runtime, handle, bench)
        finally:
            await runtime.remove(handle)

    try:
        asyncio.run(whole())
    finally:
        bench.close()


@pytest.fixture(params=[ProcessBench, BareBench])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    made: Bench = request.param(tmp_path)
    return made


def test_input_output_errors_and_the_code_are_its_own(bench: Bench) -> None:
    async def story(runtime: Runtime, handle: Handle, bench: Bench) -> None:
        line = 'read a; echo "got $a"; cat >/dev/null; echo oops >&2; exit 7'
        entered = await runtime.enter(bench.launch(1), handle, Entry(("sh", "-c", line)))
        await entered.write(b"one\ntwo\n")
        await entered.end_input()
        assert await everything(entered) == (b"got one\n", b"oops\n")
        assert await entered.wait() == 7
        await entered.end()
        assert (await said(runtime, bench, handle, "kill -9 $$"))[1] == 137
        missing = await runtime.enter(bench.launch(1), handle, Entry(("no-such-program",)))
        out, err = await everything(missing)
        assert (out, err.startswith(b"no-such-program: ")) == (b"", True)
        assert await missing.wait() in (126, 127)  # 126: without a sandbox it may not look into every folder of PATH
        await missing.end()

    run(bench, story)


def test_with_a_terminal_it_has_one_of_the_wished_size(bench: Bench) -> None:
    async def story(runtime: Runtime, handle: Handle, bench: Bench) -> None:
        entry = Entry(("sh", "-c", "test -t 0 && test -t 1 && stty size; read x; stty size"), True, 101, 33)
        entered = await runtime.enter(bench.launch(1), handle, entry)
        first = b""
        while b"33 101" not in first:
            piece = await entered.read()
            assert piece is not None
            first += piece[1]
        await entered.resize(60, 20)
        await entered.write(b"\n")
        assert b"20 60" in (await everything(entered))[0]
        assert await entered.wait() == 0
        await entered.end()

    run(bench, story)


@needs_root
def test_it_is_among_the_programs_own_processes_with_the_programs_rights(tmp_path: Path) -> None:
    async def story(runtime: Runtime, handle: Handle, bench: Bench) -> None:
        uid = identity.uid_for("app", 1, 61000)
        status, code = await said(runtime, bench, handle, "cat /proc/self/status; id -G")
        assert code == 0
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == [str(uid)] * 4
        assert {fields[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
        assert fields["NoNewPrivs"] == "1"
        assert fields["Seccomp"] == "2"
        assert status.splitlines()[-1] == str(uid)
        seen, _ = await said(
            runtime, bench, handle, "cat /proc/1/comm; echo $PORT; pwd; mount -t tmpfs x /tmp; ls /root"
        )
        assert seen.splitlines()[:3] == ["bwrap", "1", "/app"]
        assert "mount" in seen.partition("/app")[2]
        await said(runtime, bench, handle, "echo mine >/tmp/left")
        assert (await said(runtime, bench, handle, "cat /tmp/left"))[0] == "mine\n"

    run(ProcessBench(tmp_path), story)


@pytest.mark.skipif(os.geteuid() == 0, reason="without root it enters another way")
def test_without_root_it_is_among_the_programs_own_processes_too_and_has_no_rights(tmp_path: Path) -> None:
    async def story(runtime: Runtime, handle: Handle, bench: Bench) -> None:
        if probe().isolation == "none":
            pytest.skip("no sandbox without root here")
        status, code = await said(runtime, bench, handle, "cat /proc/self/status; cat /proc/1/comm; ls /root /work")
        assert code != 0
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == [str(os.geteuid())] * 4
        assert {fields[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
        assert "bwrap" in status.splitlines()

    run(ProcessBench(tmp_path), story)


@needs_root
def test_it_counts_as_the_instance_and_ends_with_it(tmp_path: Path) -> None:
    async def story(runtime: Runtime, handle: Handle, bench: Bench) -> None:
        entered = await runtime.enter(bench.launch(1), handle, Entry(("sh", "-c", "cat /proc/self/cgroup; sleep 600")))
        first = await entered.read()
        assert first is not None
        if handle["cgroup"]:
            assert handle["cgroup"].encode() in first[1] or b"/omni" in first[1] or first[1].strip().endswith(b"/")
        await runtime.kill(handle)
        async with asyncio.timeout(Bench.patience_s):
            assert await entered.wait() == 137
        await entered.end()
        with pytest.raises(Unavailable):
            await runtime.enter(bench.launch(1), handle, Entry(("true",)))

    run(ProcessBench(tmp_path), story)


def test_ended_it_is_gone_with_what_it_started_and_the_program_is_not(bench: Bench) -> None:
    async def story(runtime: Runtime, handle: Handle, bench: Bench) -> None:
        line = "sleep 601.25 & sleep 601.25 & echo up; wait"
        entered = await runtime.enter(bench.launch(1), handle, Entry(("sh", "-c", line)))
        assert await entered.read() == (STDOUT, b"up\n")
        await entered.end()
        async with asyncio.timeout(Bench.patience_s):
            while any(process.alive and sleeps(pid) for pid, process in procfs.scan().items()):
                await asyncio.sleep(0.02)
        assert (await runtime.observe(handle)).state == "running"

    run(bench, story)


def sleeps(pid: int) -> bool:
    try:
        return b"601.25" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_runtime_without_it_refuses(tmp_path: Path) -> None:
    async def story(runtime: Runtime, handle: Handle, bench: Bench) -> None:
        with pytest.raises(Refused):
            await runtime.enter(bench.launch(1), handle, Entry(("true",)))

    run(FakeBench(tmp_path), story)
