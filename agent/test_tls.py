"""An agent that talks to a member of another host: both prove themselves."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent import tls
from agent.control import ControlPlane, NoAnswer
from consensus import identity

SECRET, HERE = "s" * 40, "127.0.0.1"


def files(folder: Path, secret: str = SECRET) -> str:
    identity.make(secret, "agent@10.0.0.1-8000").write(folder)
    return str(folder)


async def member(address: str = HERE) -> tuple[asyncio.Server, str]:
    """A member that answers everything with {"ok": true}, and its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{"ok":true}')
        await writer.drain()
        writer.close()

    context = identity.server_context(identity.make(SECRET, f"{address}-8000", address))
    server = await asyncio.start_server(serve, HERE, 0, ssl=context)
    return server, f"https://{HERE}:{server.sockets[0].getsockname()[1]}"


def asked(context: ssl.SSLContext | None, address: str = HERE) -> Any:
    async def story() -> Any:
        server, url = await member(address)
        try:
            return await ControlPlane([url], "token", tls=context).get("/x", 5)
        finally:
            server.close()

    return run(story)


def run(story: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(story(), 20)

    return asyncio.run(bounded())


def test_a_member_of_the_cluster_is_believed_and_believes(tmp_path: Path) -> None:
    assert asked(tls.context(files(tmp_path))) == {"ok": True}


def test_a_member_at_another_address_than_its_own_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer):
        asked(tls.context(files(tmp_path)), "10.0.0.7")


def test_an_agent_of_another_cluster_is_not_let_in(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer):
        asked(tls.context(files(tmp_path, "o" * 40)))


def test_without_files_there_is_no_context_and_wrong_ones_are_named(tmp_path: Path) -> None:
    assert tls.context(None) is None
    assert tls.context("") is None
    with pytest.raises(tls.BadTls, match=str(tmp_path)):
        tls.context(str(tmp_path))


def test_no_key_can_be_read_by_others(tmp_path: Path) -> None:
    files(tmp_path / "tls")
    assert (tmp_path / "tls" / "member.key").stat().st_mode & 0o077 == 0
