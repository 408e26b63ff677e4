"""What build workers and the control plane say to each other: the messages, as data.

Owns the shapes and their reading from JSON; knows neither models nor HTTP. The control plane's side checks requests
with its own serializers, so unknown fields in answers are ignored here: neighbouring versions understand each other.

============================================  =====================================================================
POST /internal/builds/<id>/claim              {"worker"} → `Claim`, or 409 `not_claimable`
GET  /internal/artifacts/<sha256>             the upload, streamed
POST /internal/builds/<id>/heartbeat          token, builder, steps → `Renewed`, or 409 `lease_lost`
POST /internal/builds/<id>/logs               token, first_seq, lines `[at_us, stream, text]` → {"acked"}
PUT  /internal/packages/<sha256>?build=<id>   an uncompressed tar, streamed; header Omni-Build-Token
POST /internal/builds/<id>/finish             token and `Outcome` → {"release"}; idempotent per token
============================================  =====================================================================
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

BuilderName = Literal["python", "node", "static", "procfile", "dockerfile", "image"]
IMAGE_BUILDERS = ("dockerfile", "image")  # their packages are what `docker save` makes of one image
IMAGE_RUNTIMES = ("docker", "swarm")  # of apps whose releases may be images
IMAGE_REFERENCE = "application/vnd.omni.image+json"  # an upload that names an image instead of holding one
StepName = Literal["fetch", "unpack", "detect", "build", "package"]
StepStatus = Literal["running", "succeeded", "failed", "cancelled"]
STDOUT, STDERR, SYSTEM = 0, 1, 2  # streams of a log line; SYSTEM is what the platform itself says

LINE_BYTES = 16 * 1024
DETAIL_CHARS = 2000


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    sha256: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """How the app's org is known to one registry."""

    registry: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BuildLimits:
    """`cpu_s` and `wall_s` are for the whole build, `file_mb` for one file, `disk_mb` for the tree."""

    wall_s: float = 1800.0
    cpu_s: float = 1800.0
    memory_mb: int = 2048
    disk_mb: int = 4096
    file_mb: int = 1024


@dataclass(frozen=True, slots=True)
class Claim:
    """A build that is this worker's for as long as its lease is renewed with `token`."""

    build_id: int
    app: str
    app_id: int
    version: str
    attempt: int
    token: str = field(repr=False)
    lease_s: float
    artifact: ArtifactRef
    runtime: str = "process"
    limits: BuildLimits = BuildLimits()
    registries: tuple[RegistryLogin, ...] = ()
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One step as it is recorded before and after it ran; times RFC 3339."""

    name: StepName
    status: StepStatus
    started_at: str
    finished_at: str | None = None


@dataclass(frozen=True, slots=True)
class Renewed:
    lease_s: float
    cancel: bool


@dataclass(frozen=True, slots=True)
class Package:
    """The tree of a release as the control plane stores it."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a build failed: a stable code and a sentence for people."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a build ended. A success has package and process types, a failure its error. `image`: what was pinned, where
    the release is an image."""

    outcome: Literal["succeeded", "failed", "cancelled"]
    builder: str = ""
    package: Package | None = None
    process_types: dict[str, str] = field(default_factory=dict)
    error: Failure | None = None
    steps: tuple[Step, ...] = ()
    image: str = ""

    def to_json(self) -> dict[str, Any]:
        """As the finish call wants it: what does not apply is left out."""
        body = asdict(self) | {"steps": [asdict(step) for step in self.steps]}
        return {key: value for key, value in body.items() if value is not None}


def claim_from(data: object) -> Claim:
    """Raises ValueError (with the field) when the answer is no claim."""
    top = _object(data, "claim")
    artifact, limits = _object(top.get("artifact"), "artifact"), _object(top.get("limits"), "limits")
    default = BuildLimits()
    return Claim(
        build_id=_integer(top, "build_id"),
        app=_text(top, "app"),
        app_id=_integer(top, "app_id"),
        version=_text(top, "version"),
        attempt=_integer(top, "attempt"),
        token=_text(top, "token"),
        lease_s=_number(top, "lease_s"),
        artifact=ArtifactRef(
            sha256=_text(artifact, "sha256"),
            size=_integer(artifact, "size"),
            media_type=str(artifact.get("media_type", "")),
        ),
        runtime=str(top.get("runtime", "process")),
        limits=BuildLimits(
            wall_s=_number(limits, "wall_s", default.wall_s),
            cpu_s=_number(limits, "cpu_s", default.cpu_s),
            memory_mb=int(_number(limits, "memory_mb", default.memory_mb)),
            disk_mb=int(_number(limits, "disk_mb", default.disk_mb)),
            file_mb=int(_number(limits, "file_mb", default.file_mb)),
        ),
        registries=tuple(_login(one) for one in top.get("registries") or ()),
        request_id=str(top.get("request_id") or ""),
    )


def _login(data: object) -> RegistryLogin:
    one = _object(data, "registry")
    return RegistryLogin(_text(one, "registry"), _text(one, "username"), _text(one, "password"))


def renewed_from(data: object) -> Renewed:
    top = _object(data, "heartbeat answer")
    return Renewed(lease_s=_number(top, "lease_s"), cancel=top.get("cancel") is True)


def _object(data: object, what: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{what}: an object is wanted")
    return data


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: a text is wanted")
    return value


def _integer(data: dict[str, Any], key: str) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{key}: a whole number is wanted")
    return value


def _number(data: dict[str, Any], key: str, default: float | None = None) -> float:
    value = data.get(key, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{key}: a number above 0 is wanted")
    return float(value)
