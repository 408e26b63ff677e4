"""Asking the DNS for the record that proves a domain. Owns the queries and their bounds; decides nothing."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.resolver

from apps.domain_proof import Finding, agree, compare, record_name

_AT_ONCE = 8
_MOST_VALUES = 50


@dataclass(frozen=True, slots=True)
class Question:
    """Does the TXT record of `domain` say `wanted`?"""

    domain: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """Without `resolvers` those of the system are asked, one after the other as it is used to; else each of ours."""

    resolvers: Sequence[tuple[str, int]] = ()
    timeout_s: float = 3.0

    def ask(self, questions: Sequence[Question]) -> list[Finding]:
        """A finding for each, in order, within about three times the time-out however many they are."""
        servers: list[tuple[str, int] | None] = list(self.resolvers) or [None]
        pool = concurrent.futures.ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="dns")
        try:
            asked = [[pool.submit(self._one, question, server) for server in servers] for question in questions]
            flat = [future for futures in asked for future in futures]
            concurrent.futures.wait(flat, timeout=3 * self.timeout_s)
            return [agree([_result(future) for future in futures]) for futures in asked]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _one(self, question: Question, server: tuple[str, int] | None) -> Finding:
        where = f"{server[0]} port {server[1]}" if server else "The DNS"
        try:
            resolver = _resolver(server)
            answer = resolver.resolve(record_name(question.domain), "TXT", search=False, lifetime=self.timeout_s)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return compare([], question.domain, question.wanted)
        except (dns.name.LabelTooLong, dns.name.NameTooLong):
            return Finding("missing", "The domain's name is too long for its record.")
        except dns.resolver.LifetimeTimeout:
            return Finding("unknown", f"{where} did not answer within {self.timeout_s:g} s.")
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return Finding("unknown", f"{where} cannot tell: {type(error).__name__}.")
        values = [b"".join(entry.strings).decode("utf-8", "replace") for entry in list(answer)[:_MOST_VALUES]]
        return compare(values, question.domain, question.wanted)


def _resolver(server: tuple[str, int] | None) -> dns.resolver.Resolver:
    if server is None:
        return dns.resolver.Resolver()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [server[0]]
    resolver.port = server[1]
    return resolver


def _result(future: concurrent.futures.Future[Finding]) -> Finding:
    if not future.done() or future.cancelled():
        return Finding("unknown", "The DNS did not answer in time.")
    return future.result()
