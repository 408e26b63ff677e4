"""Web, worker and release command of one app; each says what it is and of which release."""

import http.server
import json
import os
import signal
import sys
import threading

RELEASE = os.environ.get("OMNI_RELEASE", "dev")


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"process": "web", "version": RELEASE}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def web():
    server = http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Answer)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"web of {RELEASE} listens", flush=True)
    server.serve_forever()


def worker():
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    print(f"worker of {RELEASE} works", flush=True)
    while not over.wait(1.0):
        pass
    print(f"worker of {RELEASE} has finished its job", flush=True)


def release():
    print(f"migrating to {RELEASE}", flush=True)
    if os.environ.get("RELEASE_FAILS"):
        print("the migration does not fit", file=sys.stderr, flush=True)
        sys.exit(4)


if __name__ == "__main__":
    {"web": web, "worker": worker, "release": release}[sys.argv[1]]()
