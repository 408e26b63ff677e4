"""Every code that a problem can carry, with its meaning and what to do next: the pages at a problem's `type` show it.

Owns the words and nothing else. A test compares the list with the error tree and with every refusal in the code.
"""

from __future__ import annotations

from dataclasses import dataclass

PAGE = "/docs/problems"


@dataclass(frozen=True, slots=True)
class ProblemCode:
    """`next` says what helps; the problem's own `next` is more exact where there is one."""

    code: str
    status: int
    meaning: str
    next: str


def type_url(code: str) -> str:
    """The `type` of a problem: where its code is explained, on whichever node is asked."""
    return f"{PAGE}#{code}"


_REPEAT = "Repeat the request after `Retry-After`."
_LOWER = "See the detail for the limit; an operator can raise it in config.json."

_ROWS = (
    # The request cannot be read
    (
        "malformed",
        400,
        "The request is not what this call reads: broken JSON, headers or path.",
        "See the detail, and /docs for the call.",
    ),
    (
        "truncated",
        400,
        "The body ended before its announced length, or a form before its end.",
        "Send it again, whole.",
    ),
    ("upload_idle", 400, "Nothing of the upload came for too long.", "Upload again over a steadier connection."),
    (
        "malformed_form",
        400,
        "The multipart form has no boundary or cannot be read.",
        "Let your HTTP client build the form, or send the archive as the raw body.",
    ),
    ("too_many_files", 400, "The form has more than one file.", "Send one archive."),
    ("empty_upload", 400, "The upload has no bytes.", "Send the archive's content."),
    # Who asks
    (
        "unauthenticated",
        401,
        "Credentials are missing, unknown, expired or revoked.",
        "Send `Authorization: Bearer <token>`; POST /tokens makes one.",
    ),
    (
        "forbidden",
        403,
        "This token or user may not do that.",
        "Use a token with more rights, or ask an owner of the org.",
    ),
    (
        "missing_scope",
        403,
        "The token lacks the scope that the detail names.",
        "GET /tokens shows what yours may; an admin makes one with that scope.",
    ),
    ("token_revoked", 403, "The token was revoked while the request was under way.", "Use another token."),
    ("exceeds_creator", 403, "Nobody can give more rights than they have.", "Ask somebody with those rights."),
    (
        "quota_exceeded",
        403,
        "The org's quota would be exceeded.",
        "GET /orgs/<org>/quota; delete or scale down something, or ask for a larger quota.",
    ),
    ("csrf", 403, "The form's security token is missing or old.", "Load the page again."),
    ("not_a_node", 403, "Only a node's own agent may call this.", "Nothing to do for a client of the API."),
    (
        "unknown_node",
        403,
        "The token's node is not in the cluster's configuration.",
        "Compare `instances` of config.json on all hosts.",
    ),
    ("foreign_node", 403, "The token belongs to another node.", "Check which agent.json the agent was started with."),
    (
        "foreign_package",
        403,
        "No instance of this node needs that package.",
        "Nothing: the agent reads its assignments again.",
    ),
    # What is not there
    (
        "not_found",
        404,
        "There is no such path or object, or it belongs to another org.",
        "Check the address, and the org of your token.",
    ),
    ("user_not_found", 404, "There is no such user.", "Send a password to make the user."),
    ("artifact_missing", 404, "The archive is not in the artifact store.", "Upload it again."),
    ("method_not_allowed", 405, "The path does not take that method.", "The `Allow` header lists the methods."),
    ("not_acceptable", 406, "No form of the answer is one that `Accept` allows.", "Accept application/json."),
    # Conflicts
    (
        "conflict",
        409,
        "The change collides with the object's state or with one made at the same time.",
        "Read the object again and decide anew.",
    ),
    (
        "transition_refused",
        409,
        "The object's state does not allow that step; the detail names the state.",
        "Read the object again.",
    ),
    (
        "in_flight",
        409,
        "The first upload with this Idempotency-Key still sends its body.",
        "Repeat with the same key when it has ended: you get its answer.",
    ),
    ("service_exists", 409, "There is a service of that name.", "Choose another name, or PATCH that one."),
    ("service_name_fixed", 409, "A service keeps its name: others depend on it.", "Register another one."),
    (
        "service_fixed",
        409,
        "The service is one of the platform's own, or stands in config.json, and is changed there.",
        "PATCH its maintenance, severity, owner or description; or change config.json.",
    ),
    ("service_needed", 409, "Other services depend on this one.", "Take it out of their `depends_on` first."),
    ("too_many_services", 409, "As many services are registered as there is room for.", "Remove some."),
    (
        "no_heartbeat_wanted",
        409,
        "The service is checked in another way and waits for no heartbeat.",
        "PATCH its check to `heartbeat`, or send none.",
    ),
    ("silence_ended", 409, "The silence has ended already.", "Make another one."),
    ("app_exists", 409, "The org has an app of that name.", "Choose another name."),
    ("hostname_taken", 409, "Another app answers at the host name that this name would get.", "Choose another name."),
    (
        "domain_taken",
        409,
        "The domain belongs to another app of the platform.",
        "Remove it there first, or choose another.",
    ),
    ("app_deleting", 409, "The app is being deleted.", "Wait until it is gone; its name is free then."),
    ("org_fixed", 409, "An app stays in its org.", "Create it anew in the other org."),
    ("org_name_fixed", 409, "An org keeps its name.", "Create another org."),
    ("last_owner", 409, "An org keeps at least one owner.", "Make somebody else an owner first."),
    ("org_exists", 409, "There is an org of that name.", "Choose another name."),
    ("user_exists", 409, "There is a user of that name.", "Leave the password out to add that user."),
    (
        "version_exists",
        409,
        "That version exists with other content; a version never changes.",
        "Upload under another version.",
    ),
    ("build_ended", 409, "The build has ended and cannot be cancelled.", "GET the build to see how."),
    (
        "not_claimable",
        409,
        "Another worker has the build, or it has ended.",
        "Nothing: the worker goes on with other builds.",
    ),
    ("lease_lost", 409, "This attempt no longer owns the build.", "Nothing: the build runs elsewhere or has ended."),
    ("package_missing", 409, "The built package is not in the artifact store.", "Nothing: the worker sends it again."),
    (
        "nothing_to_roll_back",
        409,
        "No other release ran before this one.",
        "GET /app/<app>/releases, then deploy one of them.",
    ),
    ("nothing_deployed", 409, "The app has no release yet.", "POST /app/<app>/release/<version>/upload"),
    ("not_running", 409, "The app is not meant to run.", "POST /app/<app>/start"),
    (
        "not_cancellable",
        409,
        "A deployment of that kind is not cancelled but answered by its opposite.",
        "See `next` of the problem.",
    ),
    ("deployment_ended", 409, "The deployment has ended.", "POST /app/<app>/rollback goes back to what ran before."),
    ("deployment_paused", 409, "The deployment is paused.", "POST /app/<app>/deployments/<id>/resume first."),
    ("not_pausable", 409, "This kind of deployment cannot be held in between.", "GET the deployment to follow it."),
    ("nothing_to_promote", 409, "The deployment's strategy has no trial to end.", "GET the deployment to follow it."),
    (
        "release_on_trial",
        409,
        "Another release is being tried beside this one.",
        "Promote or cancel that deployment first.",
    ),
    ("frozen", 409, "The app is frozen: nothing is deployed to it.", "The problem's `next` says how to lift it."),
    (
        "instance_not_running",
        409,
        "The instance does not run yet, is about to end or has ended.",
        "GET /app/<app>/instances?status=running lists those that run.",
    ),
    (
        "single_member",
        409,
        "The cluster has one member: nobody to hand the leadership to, no membership to change.",
        "Add nodes to `instances` in config.json and start again.",
    ),
    ("last_member", 409, "The last member of the cluster cannot be removed.", "GET /cluster/members"),
    (
        "raft_refused",
        409,
        "The members did not agree to that: the target lags behind, cannot be reached or cannot lead.",
        "GET /cluster/status shows each member; repeat when the detail no longer applies.",
    ),
    ("stale_incarnation", 409, "A newer process of the same agent has reported.", "Nothing: the older one ends."),
    (
        "index_too_old",
        410,
        "The events since that index are no longer kept.",
        "Read the objects anew, and go on from the answer's `Omni-Index`.",
    ),
    (
        "stale_revision",
        412,
        "The object has changed since you read it (`If-Match`).",
        "GET the object, decide anew, send its new ETag.",
    ),
    # The input
    ("too_large", 413, "The body is larger than this call takes.", _LOWER),
    ("upload_too_large", 413, "The upload is larger than allowed.", _LOWER),
    (
        "unsupported_media_type",
        415,
        "The body's type is not one that this call takes.",
        "Send JSON; an upload as a form, gzip, tar or zip.",
    ),
    (
        "invalid",
        422,
        "Some fields are not valid; `errors` lists each with its place.",
        "Mend the fields that `errors` names.",
    ),
    (
        "idempotency_key_reused",
        422,
        "The Idempotency-Key was used for another request.",
        "Repeat the request with a new key.",
    ),
    ("no_change", 422, "The form has what the app has already.", "Change something, or go back."),
    ("file_missing", 422, "The form has no file.", "Name the file's part `file`."),
    ("bad_archive", 422, "The upload is no tar.gz, tar or zip.", "tar -czf app.tar.gz -C <folder> ."),
    (
        "bad_image_reference",
        422,
        "The upload names no image.",
        'Send {"image": "registry/name:tag"} as application/json.',
    ),
    (
        "image_needs_docker",
        422,
        "An image runs only in the runtimes docker and swarm.",
        'PATCH /app/<app> {"runtime": "docker"}, then upload again.',
    ),
    ("bad_digest", 422, "The digest cannot be read.", "Content-Digest: sha-256=:<base64 of the 32 bytes>:"),
    (
        "digest_mismatch",
        422,
        "The body is not what its digest says; nothing was kept.",
        "Send it again; if it happens again, make the digest again.",
    ),
    (
        "no_process_types",
        422,
        "A release needs at least one process type.",
        "Add a Procfile with a line `web: <command>`.",
    ),
    (
        "app_running",
        409,
        "Volumes are attached and removed only while nothing of the app runs.",
        "POST /app/<app>/stop, and POST /app/<app>/start afterwards.",
    ),
    (
        "app_has_volumes",
        409,
        "An app with a volume is a singleton: it must not run twice on its data.",
        "GET /app/<app>/volumes shows them; without them `singleton` may be false.",
    ),
    ("volume_exists", 409, "The app has a volume of that name.", "Take another name, or use the one that is there."),
    ("too_many_volumes", 409, "The app has as many volumes as it may have.", "Use a folder in one of them."),
    (
        "volume_in_use",
        409,
        "Something of the app runs that uses the volume.",
        'POST /app/<app>/stop first; a restore takes `{"stop": true}`, a snapshot `{"consistency": "live"}`.',
    ),
    (
        "volume_busy",
        409,
        "A snapshot or a restore of the app's volumes is under way.",
        "GET /app/<app>/snapshots and /app/<app>/volumes/<name>/restores show it; wait for its end.",
    ),
    ("volume_node_away", 409, "The node that holds the volume is away.", "GET /nodes; bring it back first."),
    ("snapshot_not_wanted", 409, "An agent brought a snapshot that was called off.", "Nothing: the agent drops it."),
    ("snapshot_not_usable", 409, "Only a snapshot that succeeded can be restored.", "GET /app/<app>/snapshots"),
    ("snapshot_in_use", 409, "A restore from it is under way.", "Wait: GET /app/<app>/volumes/<name>/restores"),
    (
        "no_node_fits",
        409,
        "No node can take the volume's app at the moment.",
        "GET /nodes shows what each node has; the detail says why none fits.",
    ),
    (
        "confirmation_needed",
        409,
        "The call destroys data, and nobody has said that this is meant.",
        "Repeat it with `?confirm=<name>`; with `?dry_run=true` it shows what would be lost.",
    ),
    (
        "too_many_sessions",
        409,
        "As many sessions are open as the node, or the member, takes.",
        "End one of them; `limits.exec_sessions` is the node's limit.",
    ),
    (
        "instance_elsewhere",
        409,
        "The instance's task is on a node of the swarm where no agent can run a command in it.",
        "Take an instance whose `handle` (its details) names no `place`, or `docker exec` on that node.",
    ),
    (
        "ticket_used",
        409,
        "A session's ticket is good for one connection within 30 s.",
        "POST /app/<app>/instances/<id>/exec makes a new one.",
    ),
    ("task_ended", 409, "The task has ended already.", "GET /app/<app>/tasks/<id> shows how."),
    (
        "too_many_tasks",
        409,
        "As many tasks of the app are under way as may be at a time.",
        "Wait for one to end, or cancel one: POST /app/<app>/tasks/<id>/cancel.",
    ),
    ("cron_entry_exists", 409, "The app has a cron entry of that name.", "Take another name, or PATCH the one there."),
    (
        "too_many_cron_entries",
        409,
        "The app has as many cron entries as it may have.",
        "DELETE /app/<app>/cron/<name> one that is no longer needed.",
    ),
    (
        "instance_of_task",
        409,
        "The instance runs a task, which runs once.",
        "POST /app/<app>/tasks/<id>/cancel ends it; POST /app/<app>/run runs it anew.",
    ),
    ("too_many_requests", 429, "Too many requests, or too many log-ins from this address.", _REPEAT),
    # The platform
    (
        "internal_error",
        500,
        "Something went wrong on our side.",
        "The `request_id` finds it in the node's log; repeat with the same Idempotency-Key.",
    ),
    (
        "storage_error",
        500,
        "The disk or the bucket failed; nothing was kept.",
        "Upload again; an operator looks at the node's log.",
    ),
    ("no_leader", 503, "No leader can take a write at the moment; nothing happened.", _REPEAT),
    (
        "database_unavailable",
        503,
        "The database does not answer; nothing happened.",
        "GET /health shows which part; repeat after `Retry-After`.",
    ),
    ("copies_unavailable", 503, "Too few other hosts can keep a copy of the upload; nothing was kept.", _REPEAT),
    ("stale_read", 503, "This member has not seen the index that `min_index` asks for.", _REPEAT),
    (
        "outcome_unknown",
        504,
        "The write may or may not have been applied.",
        "Repeat with the same Idempotency-Key: you get the first answer, or it is done now.",
    ),
    (
        "storage_full",
        507,
        "There is no space left for uploads on this node.",
        "Delete old releases or apps, or give the node more disk.",
    ),
)

CODES = tuple(ProblemCode(*row) for row in _ROWS)
