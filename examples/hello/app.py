"""The smallest app that shows what the platform does: which release answers, from which instance and process.

The standard library's plainest parts only, so that it starts in a few hundredths of a second and needs little memory.
"""

import json
import os
import signal
import socket
import sys
import threading
import time

RELEASE = os.environ.get("OMNI_RELEASE", "dev")
INSTANCE = os.environ.get("OMNI_INSTANCE_ID", "0")
APP = os.environ.get("OMNI_APP", "hello")
STARTED = time.time()
PAGE = """<!doctype html><meta charset="utf-8"><title>{app}</title>
<body style="font: 1.2rem system-ui; margin: 15vh auto; max-width: 30rem">
<h1>Hello from {app}</h1><p>release <b>{version}</b> · instance <b>{instance}</b> · process <b>{pid}</b>
"""


def facts():
    return {
        "app": APP,
        "version": RELEASE,
        "instance": INSTANCE,
        "pid": os.getpid(),
        "uptime_s": round(time.time() - STARTED, 3),
    }


def answer(path, accept):
    if path == "/healthz":
        return 200, "application/json", b'{"status": "ok"}'
    if path == "/":
        if "text/html" in accept:
            return 200, "text/html; charset=utf-8", PAGE.format(**facts()).encode()
        return 200, "application/json", json.dumps(facts()).encode()
    return 404, "application/json", b'{"error": "not found"}'


def serve(connection):
    """Requests of one connection, one after the other; bodies are read and ignored."""
    connection.settimeout(75)
    with connection, connection.makefile("rb") as stream:
        while True:
            words = stream.readline(8192).split()
            if len(words) != 3:
                return
            method, target, version = (word.decode("latin-1") for word in words)
            headers = {}
            while (line := stream.readline(8192)) not in (b"\r\n", b"\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            stream.read(int(headers.get("content-length", "0") or 0))
            path = target.partition("?")[0]
            busy.append(path)
            status, kind, body = answer(path, headers.get("accept", ""))
            stay = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close" and not stopping.is_set()
            head = (
                f"HTTP/1.1 {status} {'OK' if status == 200 else 'Not Found'}\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(body)}\r\nOmni-Release: {RELEASE}\r\n"
                f"Connection: {'keep-alive' if stay else 'close'}\r\n\r\n"
            )
            connection.sendall(head.encode("latin-1") + (b"" if method == "HEAD" else body))
            sys.stdout.write(f"{method} {path!a} {status} release={RELEASE} instance={INSTANCE}\n")
            sys.stdout.flush()
            busy.pop()
            if not stay:
                return


def guarded(connection):
    try:
        serve(connection)
    except (OSError, ValueError):
        pass  # a caller that went away, or did not speak HTTP


stopping = threading.Event()
busy = []  # requests being answered now


def main():
    port = int(os.environ.get("PORT", "8000"))
    server = socket.create_server((os.environ.get("HOST", "0.0.0.0"), port), backlog=128)

    def stop(*_):
        stopping.set()
        server.close()
        deadline = time.monotonic() + 5
        while busy and time.monotonic() < deadline:
            time.sleep(0.01)
        print(f"stopping release={RELEASE} instance={INSTANCE}", flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    print(f"listening on port {port} release={RELEASE} instance={INSTANCE} pid={os.getpid()}", flush=True)
    while not stopping.is_set():
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=guarded, args=[connection], daemon=True).start()


if __name__ == "__main__":
    main()
