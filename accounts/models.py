"""Orgs, members, tokens, quotas: who may do what.

Owns the rows only. Verbs are in `services.py`, look-ups in `access.py`. A quota of None means no limit.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Role(models.TextChoices):
    """What a member or token may do in its org; `accounts.roles` says which scopes each role carries."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"


class Org(models.Model):
    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=63, unique=True)
    description = models.CharField(max_length=500, default="", blank=True)
    max_apps = models.PositiveIntegerField(null=True, blank=True)
    max_instances = models.PositiveIntegerField(null=True, blank=True)
    max_memory_mb = models.PositiveIntegerField(null=True, blank=True)
    max_builds_at_once = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    revision = models.BigIntegerField(default=1)

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    id = models.BigAutoField(primary_key=True)
    org = models.ForeignKey(Org, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices)
    created_at = models.DateTimeField()
    revision = models.BigIntegerField(default=1)

    class Meta:
        constraints = [models.UniqueConstraint(fields=("org", "user"), name="accounts_membership_once")]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.org}"


class ApiToken(models.Model):
    """A bearer token: the secret is shown once, only its sha256 is kept. `scopes` narrow what `role` allows."""

    id = models.BigAutoField(primary_key=True)
    org = models.ForeignKey(Org, on_delete=models.CASCADE, related_name="tokens")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, related_name="api_tokens")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=20)  # `omni_<8>`: what people recognise it by
    digest = models.CharField(max_length=64, unique=True)
    role = models.CharField(max_length=16, choices=Role.choices)
    scopes = models.JSONField(default=list)  # empty: all that the role carries
    platform = models.BooleanField(default=False)  # may run the platform itself
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=160)
    revision = models.BigIntegerField(default=1)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class TokenUse(models.Model):
    """When a token was last used: telemetry, written at most once a minute per token."""

    token_id = models.BigIntegerField(primary_key=True)
    last_used_at = models.DateTimeField()
    address = models.CharField(max_length=64, default="")

    def __str__(self) -> str:
        return f"token {self.token_id} at {self.last_used_at}"


class EventHook(models.Model):
    """An address that is told of events: an org's, or with `org` NULL the platform's. `kinds` empty: all of them."""

    id = models.BigAutoField(primary_key=True)
    org = models.ForeignKey(Org, on_delete=models.CASCADE, null=True, related_name="event_hooks")
    app_id = models.BigIntegerField(null=True)  # only events of this app
    url = models.CharField(max_length=500)
    secret = models.TextField()  # sealed; the receiver checks signatures with it
    kinds = models.JSONField(default=list)  # `app.created`, or `deployment.*`
    active = models.BooleanField(default=True)
    why_inactive = models.CharField(max_length=300, default="")
    since_key = models.BigIntegerField()  # events behind this one are told
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    revision = models.BigIntegerField(default=1)

    def __str__(self) -> str:
        return self.url


class EventHookProgress(models.Model):
    """How far a hook was told, written by the leader's sender. Telemetry: losing it tells some events again."""

    hook_id = models.BigIntegerField(primary_key=True)
    key = models.BigIntegerField()
    failures = models.PositiveIntegerField(default=0)  # in a row
    next_at_us = models.BigIntegerField(default=0)
    at_us = models.BigIntegerField()
    last_status = models.IntegerField(null=True)
    last_detail = models.CharField(max_length=200, default="")
    delivered = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"hook {self.hook_id} up to {self.key}"
