"""What an archive says of itself: whose it is, as of which write, and what each part must hold.

Owns the manifest's shape and its version. Must not read or write archives, nor open a database.
"""

from __future__ import annotations

import hashlib
import hmac

from pydantic import BaseModel, ConfigDict, ValidationError

from omni.backup import Refused
from omni.kernel import keys

FORMAT = 1
NAME = "manifest.json"
MAC_NAME = "manifest.mac"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class TablePart(_Part):
    """The rows of one model, one JSON array a line in the order of `columns`, ordered by primary key."""

    model: str
    part: str
    columns: list[str]
    rows: int
    size: int
    sha256: str


class ArtifactPart(_Part):
    """One artifact; `held` is False for one that could not be read and was left out on request."""

    sha256: str
    size: int
    kind: str
    held: bool = True

    @property
    def part(self) -> str:
        return f"artifacts/{self.sha256}"


class MemberPart(_Part):
    """A member of the cluster at the time of the backup."""

    id: str
    address: str


class Manifest(_Part):
    """`schema_state` are the applied migrations, `probe` a value sealed with the master key of the backup."""

    format: int
    created_at: str
    version: str
    cluster_id: str
    epoch: int
    write_index: int
    database: str
    telemetry: bool
    schema_state: list[tuple[str, str]]
    members: list[MemberPart]
    tables: list[TablePart]
    artifacts: list[ArtifactPart]
    keys: list[str]
    keys_in_archive: bool
    probe: str

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def artifact_bytes(self) -> int:
        return sum(artifact.size for artifact in self.artifacts if artifact.held)

    def to_bytes(self) -> bytes:
        return self.model_dump_json(indent=1).encode()


def read(data: bytes) -> Manifest:
    """Raises Refused for what is no manifest of a version that this code knows."""
    try:
        found = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(f"{NAME} cannot be read: {where}: {first['msg']}") from error
    if found.format > FORMAT:
        raise Refused(f"the archive has format {found.format}, this version reads up to {FORMAT}: use a newer version")
    return found


def mac(data: bytes, cluster_secret: str) -> str:
    """Ties a manifest, and by its digests the whole archive, to the cluster whose secret it is."""
    return hmac.new(keys.derive(cluster_secret, "backup"), data, hashlib.sha256).hexdigest()
