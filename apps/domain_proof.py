"""When a custom domain counts as proven: the record that proves it, and what a look at the DNS changes. Pure.

The owner of a domain shows by a TXT record that it may be served for this one app. A proven domain stays so while the
DNS does not answer; only an answer without the record begins a time of grace, at whose end it is served no more.
"""

from __future__ import annotations

import datetime as dt
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

LABEL = "_omni-challenge"
LONGEST_NAME = 253 - len(LABEL) - 1
_PROBLEM_MAX = 300

Verdict = Literal["seen", "missing", "unknown"]
Change = Literal["domain.verified", "domain.failing", "domain.recovered", "domain.unproven", "domain.checked"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at the DNS found; `detail` says why it was not the record."""

    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """How far a domain is. `failing_since`: proven, but the record is gone since then."""

    verified_at: dt.datetime | None = None
    failing_since: dt.datetime | None = None
    problem: str = ""


def record_name(domain: str) -> str:
    return f"{LABEL}.{domain}"


def record_value(key: bytes, app_id: int, domain: str) -> str:
    """What the TXT record must say: bound to this platform, this app and this domain."""
    return f"omni-verify={hmac.new(key, f'{app_id}:{domain}'.encode(), 'sha256').hexdigest()[:40]}"


def compare(values: Sequence[str], domain: str, wanted: str) -> Finding:
    """What the values of the TXT records found mean."""
    if wanted in (value.strip() for value in values):
        return Finding("seen")
    if not values:
        return Finding("missing", f"There is no TXT record at {record_name(domain)} yet.")
    shown = ", ".join(f'"{value[:60]}"' for value in values[:3])
    return Finding("missing", f"The TXT record at {record_name(domain)} says {shown}.")


def agree(findings: Sequence[Finding]) -> Finding:
    """What most of the resolvers say; unknown when there is no such majority."""
    for verdict in ("seen", "missing"):
        same = [finding for finding in findings if finding.verdict == verdict]
        if len(same) * 2 > len(findings):
            return same[0]
    silent = next((finding for finding in findings if finding.verdict == "unknown"), None)
    return Finding("unknown", silent.detail if silent else "The resolvers do not agree yet.")


def after(proof: Proof, finding: Finding, now: dt.datetime, grace: dt.timedelta) -> tuple[Proof, Change | None]:
    """The proof after a look, and what is worth telling; None when nothing changed."""
    problem = finding.detail[:_PROBLEM_MAX]
    if finding.verdict == "seen":
        if proof.verified_at is None:
            return Proof(verified_at=now), "domain.verified"
        if proof.failing_since is not None:
            return Proof(verified_at=proof.verified_at), "domain.recovered"
        return proof, None
    if proof.verified_at is None:
        return (replace(proof, problem=problem), "domain.checked") if problem != proof.problem else (proof, None)
    if finding.verdict == "unknown":
        return proof, None
    if proof.failing_since is None:
        return replace(proof, failing_since=now, problem=problem), "domain.failing"
    if now - proof.failing_since >= grace:
        return Proof(problem=problem), "domain.unproven"
    return proof, None
