"""The configuration of Caddy, as a pure function of a few ports and paths.

Owns every choice made in it. It holds no app, host name or instance: those come by DNS, because each change of the
configuration is a reload, and a reload closes idle connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

JSON = dict[str, Any]

# What Go's resolver takes as a name; anything else it refuses without asking, and Caddy would wait out its retries.
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
GOOD_HOST = rf"^(?:{_LABEL}\.){{0,8}}{_LABEL}(?::\d+)?$"
IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]
LOG_ROLL_MB = 64
LOG_KEEP = 2


@dataclass(frozen=True, slots=True)
class Layout:
    """Where Caddy listens and writes."""

    address: str
    port: int
    dns_port: int
    page_port: int
    admin_socket: Path
    access_log: Path
    own_log: Path


def build(layout: Layout) -> JSON:
    return {
        "admin": {"listen": f"unix/{layout.admin_socket}|0600", "config": {"persist": False}},
        "logging": {"logs": _logs(layout)},
        "apps": {
            "http": {
                # On a reload or stop, open requests have this long; the default is for ever.
                "grace_period": "30s",
                "servers": {
                    "apps": {
                        "listen": [_listen(layout.address, layout.port)],
                        "automatic_https": {"disable": True},
                        "protocols": ["h1", "h2c"],
                        "read_header_timeout": "10s",
                        "idle_timeout": "5m",
                        "routes": _routes(layout),
                        "errors": {"routes": _error_routes()},
                        "logs": {"default_logger_name": "requests"},
                    }
                },
            }
        },
    }


def _listen(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _logs(layout: Layout) -> JSON:
    def writer(path: Path) -> JSON:
        return {
            "output": "file",
            "filename": str(path),
            "mode": "0600",
            "roll_size_mb": LOG_ROLL_MB,
            "roll_keep": LOG_KEEP,
            "roll_gzip": False,
        }

    dropped = ["request", "resp_headers", "user_id", "bytes_read"]
    return {
        "default": {"writer": writer(layout.own_log), "level": "WARN", "exclude": ["http.log.access"]},
        "requests": {
            "writer": writer(layout.access_log),
            "include": ["http.log.access.requests"],
            "encoder": {
                "format": "filter",
                "wrap": {"format": "json", "level_key": "", "name_key": "", "message_key": ""},
                "fields": {field: {"filter": "delete"} for field in dropped},
            },
        },
    }


def _routes(layout: Layout) -> list[JSON]:
    named = {
        "match": [{"header_regexp": {"Host": {"pattern": GOOD_HOST}}}],
        "handle": [
            {"handler": "log_append", "key": "upstream", "value": "{http.reverse_proxy.upstream.hostport}"},
            {"handler": "log_append", "key": "ms", "value": "{http.reverse_proxy.upstream.latency_ms}"},
            _proxy(layout),
        ],
        "terminal": True,
    }
    rest = {"handle": [{"handler": "reverse_proxy", "upstreams": [_pages(layout)]}], "terminal": True}
    return [named, rest]


def _pages(layout: Layout) -> JSON:
    return {"dial": f"127.0.0.1:{layout.page_port}"}


def _proxy(layout: Layout) -> JSON:
    no_body = {"not": [{"header": {"Content-Length": ["*"]}}, {"header": {"Transfer-Encoding": ["*"]}}]}
    return {
        "handler": "reverse_proxy",
        # Taken only when the name cannot be looked up at all and nothing is remembered of it.
        "upstreams": [_pages(layout)],
        "dynamic_upstreams": {
            "source": "srv",
            # The last dot keeps Go from trying the search domains of the host.
            "name": "{http.request.host}.omni.",
            "refresh": "1s",
            # How long a failed look-up's outcome (the last good answer, or none) stands until the next try, and so on
            # without end. Short: members would stay as they were long after the resolver is back, and a name that
            # was not remembered would have no instance for so long.
            "grace_period": "500ms",
            "dial_timeout": "1s",
            # By UDP: three times the throughput of TCP when Caddy must ask often. It dials whatever is given here, also
            # when Go would go over to TCP for a cut answer, so that an answer must never need more than a datagram.
            "resolver": {"addresses": [f"udp/127.0.0.1:{layout.dns_port}"]},
        },
        # No passive health checks: they would spare the dead one's next callers 50 ms, but one path on which an app
        # resets connections could keep its only instance "down" for everybody.
        "load_balancing": {
            "selection_policy": {"policy": "least_conn"},
            "try_duration": "3s",
            "try_interval": "50ms",
            # A refused connection is always tried elsewhere; a request that was sent only if it may be repeated,
            # and Caddy can repeat none whose body has flowed.
            "retry_match": [
                {"method": IDEMPOTENT, **no_body},
                {"method": IDEMPOTENT, "header": {"Content-Length": ["0"]}},
            ],
        },
        # Caddy writes X-Forwarded-* itself; these it would hand on as the client made them up.
        "headers": {"request": {"delete": ["Forwarded", "X-Real-Ip", "X-Client-Ip", "True-Client-Ip"]}},
        "transport": {
            "protocol": "http",
            # Here too, or the targets of SRV are looked up in the system's DNS.
            "resolver": {"addresses": [f"udp/127.0.0.1:{layout.dns_port}"]},
            "dial_timeout": "1s",
            "compression": False,
            # Below the idle time-outs of common servers (2 s and up), so that a request that may not be repeated
            # seldom meets a connection that its server is just closing.
            "keep_alive": {"idle_timeout": "1500ms", "max_idle_conns_per_host": 256},
        },
        "stream_close_delay": "30s",
    }


def _error_routes() -> list[JSON]:
    """Caddy's own refusals (every instance refused for 3 s, or this process is dead and nothing is remembered)."""
    headers = {"Retry-After": ["2"], "Cache-Control": ["no-store"], "Vary": ["Accept"]}
    detail = "{http.request.host} has no instance that answers right now."
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>{http.error.status_code}</title>'
        f"<h1>{{http.error.status_code}} {{http.error.status_text}}</h1><p>{detail}</p>"
        "<small>request {http.request.uuid}</small></html>\n"
    )
    problem = (
        '{"type":"urn:omni:error:no_instance","title":"{http.error.status_text}","status":{http.error.status_code},'
        f'"detail":"{detail}","code":"no_instance","request_id":"{{http.request.uuid}}",'
        '"next":"omni ps"}'
    )

    def answer(kind: str, body: str) -> JSON:
        return {
            "handler": "static_response",
            "status_code": "{http.error.status_code}",
            "headers": {**headers, "Content-Type": [kind]},
            "body": body,
        }

    return [
        {
            "match": [{"header": {"Accept": ["*text/html*"]}}],
            "handle": [answer("text/html; charset=utf-8", text)],
            "terminal": True,
        },
        {"handle": [answer("application/problem+json", problem)]},
    ]
