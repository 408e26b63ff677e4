"""Which tables the gate guards, and which database a model lives in.

Default deny (DECISIONS 4): every table is gated unless it is listed here with its reason. Telemetry is append-only,
owned by whoever reports it, and lives in a database (or at least a connection) of its own, so that it never shares a
transaction or a lock with control-plane writes.
"""

from __future__ import annotations

TELEMETRY = "telemetry"

# model label (lower case) -> its table; all of them live in the telemetry database.
TELEMETRY_MODELS: dict[str, str] = {
    "accounts.tokenuse": "accounts_tokenuse",
    "accounts.eventhookprogress": "accounts_eventhookprogress",
    "releases.buildlogline": "releases_buildlogline",
    "instances.logline": "instances_logline",
    "instances.logoffset": "instances_logoffset",
    "instances.logarrival": "instances_logarrival",
    "instances.logcounter": "instances_logcounter",
    "instances.sample": "instances_sample",
    "instances.latestsample": "instances_latestsample",
    "instances.requestsample": "instances_requestsample",
    "instances.requestoffset": "instances_requestoffset",
    "instances.hostsample": "instances_hostsample",
    "instances.platformsample": "instances_platformsample",
    "services.checkspan": "services_checkspan",
    "services.beat": "services_beat",
}

# Tables outside the gate in the default database: Django's own bookkeeping that no one's app depends on.
UNGATED_TABLES: frozenset[str] = frozenset(
    {
        "django_migrations",  # written by migrate, which runs under gate.maintenance
        "django_content_type",  # written by migrate
        "auth_permission",  # written by migrate
        "django_session",  # console sessions: losing one means logging in again
        "axes_accessattempt",  # login throttling
        "axes_accessfailurelog",
        "axes_accesslog",
        "axes_accessattemptexpiration",
        "consensus_fence",  # written by the fence itself, by conditional UPDATE only
    }
    | set(TELEMETRY_MODELS.values())
)

# Tables that say who may do what and how much. A gate transaction that writes one of them moves the fence's
# `rights_index`, so that a copy of a right can be known to be still so (`accounts.own_org`).
RIGHTS_TABLES: frozenset[str] = frozenset({"accounts_org", "accounts_membership", "accounts_apitoken", "auth_user"})
