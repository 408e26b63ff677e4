"""The configuration of Caddy, as a pure function of a few ports, paths and policies.

Owns every choice made in it. It holds no instance, and no host name but those that want something of their own
(`policies`): all others come by DNS, because each change of the configuration is a reload, and a reload closes idle
connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.ingress.pages import ASK_LIMIT
from agent.ingress.policies import HostPolicy, share_pattern
from agent.ingress.tls import Https, server, tls_apps

JSON = dict[str, Any]

# What Go's resolver takes as a name; anything else it refuses without asking, and Caddy would wait out its retries.
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
GOOD_HOST = rf"^(?:{_LABEL}\.){{0,8}}{_LABEL}(?::\d+)?$"
IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]
STICKY_COOKIE, POOL_COOKIE = "omni_instance", "omni_pool"
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
    https: Https | None = None


def build(layout: Layout, policies: Sequence[HostPolicy] = ()) -> JSON:
    plain = _server(layout, policies)
    servers = {"apps": {"listen": [_listen(layout.address, layout.port)], **plain, "protocols": ["h1", "h2c"]}}
    if layout.https is not None:
        servers["secure"] = {**plain, **server(_listen(layout.address, layout.https.port))}
    return {
        "admin": {"listen": f"unix/{layout.admin_socket}|0600", "config": {"persist": False}},
        "logging": {"logs": _logs(layout)},
        "apps": {
            "http": {
                # On a reload or stop, open requests have this long; the default is for ever.
                "grace_period": "30s",
                # Before that, a configuration whose connections go elsewhere by now still answers as ever for so long:
                # what it has accepted it also reads. See `listeners`.
                "shutdown_delay": "1s",
                "servers": servers,
            },
            **(tls_apps(layout.https, layout.page_port) if layout.https is not None else {}),
        },
    }


def _server(layout: Layout, policies: Sequence[HostPolicy]) -> JSON:
    """What the listeners have in common."""
    return {
        "automatic_https": {"disable": True},
        "read_header_timeout": "10s",
        "idle_timeout": "5m",
        "routes": _routes(layout, policies),
        "errors": {"routes": _error_routes()},
        "logs": {"default_logger_name": "requests"},
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


def _routes(layout: Layout, policies: Sequence[HostPolicy]) -> list[JSON]:
    own = [
        {"match": [{"host": [policy.host]}], "handle": _own(layout, policy), "terminal": True} for policy in policies
    ]
    named = {
        "match": [{"header_regexp": {"Host": {"pattern": GOOD_HOST}}}],
        "handle": [*_logged(), _proxy(layout)],
        "terminal": True,
    }
    rest = {"handle": [{"handler": "reverse_proxy", "upstreams": [_pages(layout)]}], "terminal": True}
    return [_leave(), *own, named, rest]


def _leave() -> JSON:
    """What is still kept open to a configuration that ends closes after its next answer, not in the middle of one."""
    leaving = {"vars": {"{http.shutting_down}": ["true"]}, "not": [{"header": {"Upgrade": ["*"]}}]}
    close = {"handler": "headers", "response": {"set": {"Connection": ["close"]}}}
    return {"match": [leaving], "handle": [close]}


def _logged() -> list[JSON]:
    fields = {
        "upstream": "{http.reverse_proxy.upstream.hostport}",
        "ms": "{http.reverse_proxy.upstream.latency_ms}",
        "retries": "{http.reverse_proxy.retries}",
    }
    return [{"handler": "log_append", "key": key, "value": value} for key, value in fields.items()]


def _own(layout: Layout, policy: HostPolicy) -> list[JSON]:
    """The handlers of a host that wants something of its own, in the order in which a request meets them."""
    handlers = _logged()
    if policy.limited:
        handlers.append(_ask_limit(layout))
    if policy.max_body_mb:
        handlers.append({"handler": "request_body", "max_size": policy.max_body_mb * 1_000_000})
    if not policy.canary_percent:
        return [*handlers, _proxy(layout, sticky=policy.sticky)]
    pools: dict[str, list[JSON]] = {
        pool: [_proxy(layout, f".{pool}", sticky=policy.sticky)] for pool in ("stable", "canary")
    }
    chance = {"vars_regexp": {"{http.request.uuid}": {"pattern": share_pattern(policy.canary_percent)}}}
    if not policy.sticky:
        routes = [_pool([chance], pools["canary"]), _pool(None, pools["stable"])]
        return [*handlers, {"handler": "subroute", "routes": routes}]
    kept = [
        _pool([{"header_regexp": {"Cookie": {"pattern": rf"(?:^|;\s*){POOL_COOKIE}={p}(?:;|$)"}}}], pools[p])
        for p in pools
    ]
    drawn = [
        _pool([chance], [_remember("canary"), *pools["canary"]]),
        _pool(None, [_remember("stable"), *pools["stable"]]),
    ]
    return [*handlers, {"handler": "subroute", "routes": [*kept, *drawn]}]


def _pool(match: list[JSON] | None, handle: list[JSON]) -> JSON:
    return {**({"match": match} if match else {}), "handle": handle, "terminal": True}


def _remember(pool: str) -> JSON:
    """A client of a sticky app stays in the pool that it was drawn into."""
    cookie = f"{POOL_COOKIE}={pool}; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"
    return {"handler": "headers", "response": {"deferred": True, "add": {"Set-Cookie": [cookie]}}}


def _ask_limit(layout: Layout) -> JSON:
    """Asks the page listener first; its 200 lets the request go on, anything else is the answer."""
    return {
        "handler": "reverse_proxy",
        "upstreams": [_pages(layout)],
        "rewrite": {"method": "GET", "uri": ASK_LIMIT},
        "handle_response": [{"match": {"status_code": [2]}, "routes": [{"handle": [{"handler": "vars"}]}]}],
    }


def _pages(layout: Layout) -> JSON:
    return {"dial": f"127.0.0.1:{layout.page_port}"}


def _proxy(layout: Layout, pool: str = "", *, sticky: bool = False) -> JSON:
    no_body = {"not": [{"header": {"Content-Length": ["*"]}}, {"header": {"Transfer-Encoding": ["*"]}}]}
    return {
        "handler": "reverse_proxy",
        # Taken only when the name cannot be looked up at all and nothing is remembered of it.
        "upstreams": [_pages(layout)],
        "dynamic_upstreams": {
            "source": "srv",
            # The last dot keeps Go from trying the search domains of the host.
            "name": f"{{http.request.host}}{pool}.omni.",
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
            "selection_policy": _selection(sticky),
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
        # A reload must not cut WebSockets; their instance's own end still does.
        "stream_close_delay": "1h",
    }


def _selection(sticky: bool) -> JSON:
    least = {"policy": "least_conn"}
    return {"policy": "cookie", "name": STICKY_COOKIE, "fallback": least} if sticky else least


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
