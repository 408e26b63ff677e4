"""The shape of an internal service: the same in config.json (`services`) and in the body of `POST /services`.

Owns fields, defaults and what must hold between them, as frozen pydantic models. What a check means is
`agent.checks`' business, what a service's state is `services.decision`'s.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

TIMEOUT_S = 3.0
NAME = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
Host = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9:._-]+$")]
PortNumber = Annotated[int, Field(ge=1, le=65_535)]


class Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _http(url: str) -> None:
    parts = urlsplit(url)
    try:
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        good = good and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("the url is http(s)://host… without a user")


class HttpCheck(Shape):
    """Redirects are not followed: the status counts."""

    type: Literal["http"]
    url: Annotated[str, Field(max_length=2000, pattern=r"^[\x21-\x7e]+$")]
    method: Literal["GET", "HEAD"] = "GET"
    status_min: Annotated[int, Field(ge=100, le=599)] = 200
    status_max: Annotated[int, Field(ge=100, le=599)] = 399
    contains: Annotated[str, Field(max_length=500)] = Field("", description="text that the body must hold")

    @model_validator(mode="after")
    def _sound(self) -> HttpCheck:
        _http(self.url)
        if self.status_min > self.status_max:
            raise ValueError("status_min is above status_max")
        if self.contains and self.method == "HEAD":
            raise ValueError("a HEAD answer has no body to look into")
        return self


class TcpCheck(Shape):
    type: Literal["tcp"]
    host: Host
    port: PortNumber


class TlsCheck(Shape):
    """How many days the certificate is good for."""

    type: Literal["tls"]
    host: Host
    port: PortNumber = 443
    server_name: Annotated[str, Field(max_length=253)] = Field("", description="default: the host")
    verify: bool = Field(True, description="the certificate must be trusted, too")
    warn_days: Annotated[float, Field(ge=0, le=10_000)] = 30.0
    fail_days: Annotated[float, Field(ge=0, le=10_000)] = 7.0

    @model_validator(mode="after")
    def _sound(self) -> TlsCheck:
        if self.fail_days > self.warn_days:
            raise ValueError("fail_days is above warn_days")
        return self


class ExecCheck(Shape):
    """Runs on the node, as nobody, without a shell; exit code 0 is good."""

    type: Literal["exec"]
    command: Annotated[list[Annotated[str, Field(max_length=4000)]], Field(min_length=1, max_length=64)]
    node: Annotated[str, Field(max_length=64)] = Field("", description="on this node only; default: as vantage_points")


class HeartbeatCheck(Shape):
    """The service itself must call `POST /services/<id>/heartbeat` once in `interval_s`."""

    type: Literal["heartbeat"]


class DiskCheck(Shape):
    """Free space, in percent; of the platform's own parts only."""

    type: Literal["disk"]
    node: str
    path: str
    warn_percent: float
    fail_percent: float


class PartCheck(Shape):
    """A part that the leader asks itself; of the platform's own parts only."""

    type: Literal["part"]
    part: str


Check = Annotated[HttpCheck | TcpCheck | TlsCheck | ExecCheck | HeartbeatCheck, Field(discriminator="type")]
AnyCheck = Annotated[
    HttpCheck | TcpCheck | TlsCheck | ExecCheck | HeartbeatCheck | DiskCheck | PartCheck, Field(discriminator="type")
]


class _Remedy(Shape):
    """`after_s`: so long it must be unhealthy first; `backoff_s` doubles with each try that did not help."""

    after_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    backoff_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    max_per_hour: Annotated[int, Field(ge=1, le=60)] = 3


class RestartApp(_Remedy):
    type: Literal["restart_app"]
    app: Annotated[int, Field(ge=1)] | Annotated[str, Field(min_length=1, max_length=127)] = Field(
        description="id or name of the app behind the service"
    )


class RunTask(_Remedy):
    """A command in an instance of its own, in the release that the app runs; `timeout_s` ends it."""

    type: Literal["run_task"]
    app: Annotated[int, Field(ge=1)] | Annotated[str, Field(min_length=1, max_length=127)]
    command: Annotated[list[Annotated[str, Field(max_length=4000)]], Field(min_length=1, max_length=64)]
    timeout_s: Annotated[float, Field(ge=1, le=3600)] = 600.0


class CallWebhook(_Remedy):
    type: Literal["webhook"]
    url: Annotated[str, Field(max_length=2000, pattern=r"^[\x21-\x7e]+$")]
    secret: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _sound(self) -> CallWebhook:
        _http(self.url)
        return self


Remedy = Annotated[RestartApp | RunTask | CallWebhook, Field(discriminator="type")]
Severity = Literal["info", "warning", "critical"]


class Definition(Shape):
    """What is watched and what follows, without its name and its check. Seconds."""

    description: Annotated[str, Field(max_length=500)] = ""
    interval_s: Annotated[float, Field(ge=1, le=86_400)] = Field(10.0, description="pause between two checks")
    timeout_s: Annotated[float, Field(ge=0.1, le=60)] = Field(
        TIMEOUT_S, description="longest wait for an answer; by default not above the interval"
    )
    healthy_threshold: Annotated[int, Field(ge=1, le=100)] = Field(2, description="good checks in a row until healthy")
    unhealthy_threshold: Annotated[int, Field(ge=1, le=100)] = Field(3, description="failed ones until unhealthy")
    start_period_s: Annotated[float, Field(ge=0, le=86_400)] = Field(30.0, description="failures that do not count")
    vantage_points: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="nodes; default: all")
    severity: Severity = "warning"
    owner: Annotated[str, Field(max_length=120)] = ""
    depends_on: Annotated[list[Annotated[str, Field(max_length=120)]], Field(max_length=100)] = Field(
        default_factory=list, description="names of services that it cannot do without"
    )
    remedy: Remedy | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_timeout(cls, given: Any) -> Any:
        if isinstance(given, dict) and "timeout_s" not in given:
            interval = given.get("interval_s")
            if isinstance(interval, (int, float)) and 1 <= interval < TIMEOUT_S:
                return {**given, "timeout_s": float(interval)}
        return given

    @model_validator(mode="after")
    def _times(self) -> Definition:
        if self.timeout_s > self.interval_s:
            raise ValueError("timeout_s is above interval_s")
        return self


class ServiceKeys(Definition):
    """One entry of `services`."""

    name: Annotated[str, Field(pattern=NAME)]
    check: Check


def as_json(shape: BaseModel) -> dict[str, Any]:
    """Plain JSON, secrets included: for the database, never for an answer."""

    def opened(value: Any) -> Any:
        if isinstance(value, SecretStr):
            return value.get_secret_value()
        if isinstance(value, dict):
            return {name: opened(one) for name, one in value.items()}
        return [opened(one) for one in value] if isinstance(value, (list, tuple)) else value

    return {name: opened(value) for name, value in shape.model_dump(mode="python").items()}
