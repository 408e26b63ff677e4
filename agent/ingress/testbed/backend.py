"""An app instance for tests: a small HTTP server, `python -m agent.ingress.testbed.backend NAME`.

/            its name            /headers   the request's header lines    /slow?MS   its name, after MS milliseconds
/upload      size of the body    /stream?N  N chunks, 50 ms apart         /die       ends the process, no answer
/big?N       N MiB               /ws        WebSocket handshake, then echoes raw bytes
/fail        500
"""

from __future__ import annotations

import asyncio
import os
import sys


async def _body_size(reader: asyncio.StreamReader, fields: dict[str, str]) -> int:
    total = 0
    if "chunked" in fields.get("transfer-encoding", ""):
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
            total += size
        await reader.readline()
        return total
    left = int(fields.get("content-length", "0"))
    while left > 0:
        chunk = await reader.read(min(left, 1 << 18))
        if not chunk:
            raise ConnectionError("the body was cut")
        left -= len(chunk)
        total += len(chunk)
    return total


class Backend:
    def __init__(self, name: str) -> None:
        self._name = name.encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = head.split("\r\n")
                path, _, query = lines[0].split(" ")[1].partition("?")
                fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
                if await self._special(path, query, reader, writer):
                    continue
                size = await _body_size(reader, fields)
                body, status = self._name, "200 OK"
                if path == "/headers":
                    body = head.encode("latin-1")
                elif path == "/upload":
                    body = str(size).encode()
                elif path == "/slow":
                    await asyncio.sleep(int(query) / 1000)
                elif path == "/fail":
                    status = "500 Internal Server Error"
                writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _special(self, path: str, query: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if path == "/die":
            os._exit(9)
        if path == "/stream":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n")
            for i in range(int(query)):
                writer.write(b"4\r\n%03d\n\r\n" % i)
                await writer.drain()
                await asyncio.sleep(0.05)
            writer.write(b"0\r\n\r\n")
        elif path == "/big":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (int(query) << 20))
            for _ in range(int(query)):
                writer.write(bytes(1 << 20))
                await writer.drain()
        elif path == "/ws":
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            raise ConnectionError("closed")
        else:
            return False
        await writer.drain()
        return True


async def main(name: str) -> None:
    server = await asyncio.start_server(Backend(name).serve, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(main(sys.argv[1]))
    except ImportError:
        asyncio.run(main(sys.argv[1]))
