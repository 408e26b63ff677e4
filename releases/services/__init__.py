"""The verbs of builds and releases. Each runs inside the gate and reads again what it decides on.

uploads    accept an upload: artifact and queued build
builds     claim, renew, finish, cancel, declare lost
releases   the next release for a version, a configuration, a rollback
registries how an org is known to private registries
purge      what a deleted app leaves, and artifacts that nobody refers to
"""

from releases.services.builds import (
    BuildResult,
    Claimed,
    Renewal,
    cancel_build,
    check_attempt,
    claim_build,
    declare_lost,
    finish_build,
    renew_lease,
    renewal_of,
)
from releases.services.purge import BATCH as PURGE_BATCH
from releases.services.purge import Purged, collect_artifacts, discard, drop_unreferenced, purge_app
from releases.services.registries import registry_logins, remove_registry, store_registry
from releases.services.releases import (
    change_configuration,
    deploy_version,
    previous_release,
    release_for,
    rollback_release,
)
from releases.services.uploads import Accepted, accept_upload, existing_build

__all__ = [
    "PURGE_BATCH",
    "Accepted",
    "BuildResult",
    "Claimed",
    "Purged",
    "Renewal",
    "accept_upload",
    "cancel_build",
    "change_configuration",
    "check_attempt",
    "claim_build",
    "collect_artifacts",
    "declare_lost",
    "deploy_version",
    "discard",
    "drop_unreferenced",
    "existing_build",
    "finish_build",
    "previous_release",
    "purge_app",
    "registry_logins",
    "release_for",
    "remove_registry",
    "renew_lease",
    "renewal_of",
    "rollback_release",
    "store_registry",
]
