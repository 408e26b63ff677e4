"""An app that goes wrong in the way that mode.txt names; for trying out what the platform makes of it."""

import http.server
import os
import signal
import sys
import threading
import time

MODE, _, ARGUMENT = open("mode.txt").read().strip().partition(" ")
PORT = int(os.environ.get("PORT", "8000"))
UNHEALTHY = {"never-healthy", "ignores-term"}


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status, body = 200, os.environ.get("OMNI_RELEASE", "?").encode()
        if self.path == "/healthz" and MODE in UNHEALTHY:
            status, body = 503, b'{"error": "the database is missing"}'
        elif self.path != "/healthz" and MODE == "fails-requests":
            status, body = 500, b"a bug"
        elif self.path == "/slow":
            time.sleep(2)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def exits():
    print("nothing works without SECRET_KEY", file=sys.stderr, flush=True)
    sys.exit(3)


def eat_memory():
    print("loading the model", flush=True)
    eaten = []
    while True:
        eaten.append(bytearray(8 << 20))
        time.sleep(0.01)


def crash_later():
    time.sleep(float(ARGUMENT or 60))
    print("the cache is full", file=sys.stderr, flush=True)
    os._exit(7)


def main():
    print(f"mode {MODE}", flush=True)
    if MODE == "exits":
        exits()
    elif MODE == "out-of-memory":
        eat_memory()
    elif MODE == "crashes-later":
        threading.Thread(target=crash_later, daemon=True).start()
    port = 0 if MODE == "wrong-port" else PORT
    ending = signal.SIG_IGN if MODE == "ignores-term" else lambda *_: os._exit(0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1" if MODE == "wrong-port" else "0.0.0.0", port), Page)
    signal.signal(signal.SIGTERM, ending)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
