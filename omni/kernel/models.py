"""The numbered record of every write.

Owns the `Event` row. Events are written by `consensus.gate` alone, in the transaction of the change that they record.
"""

from __future__ import annotations

from django.db import models

ORDINALS = 4096  # events one transaction may record


class Event(models.Model):
    """One change: (write_index, ordinal) is its key, packed as `write_index * 4096 + ordinal` to be one primary key."""

    key = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField()
    epoch = models.BigIntegerField()
    claim = models.CharField(max_length=32)
    member = models.CharField(max_length=64)
    actor = models.CharField(max_length=160)
    cause = models.CharField(max_length=200)
    request_id = models.CharField(max_length=64)
    kind = models.CharField(max_length=64)
    object_type = models.CharField(max_length=32)
    object_id = models.BigIntegerField()
    org_id = models.BigIntegerField(null=True)
    app_id = models.BigIntegerField(null=True)
    change = models.JSONField(default=dict)

    class Meta:
        ordering = ("-key",)
        indexes = [
            models.Index(fields=("app_id", "key"), name="kernel_event_app"),
            models.Index(fields=("org_id", "key"), name="kernel_event_org"),
        ]

    def __str__(self) -> str:
        return f"{self.write_index}.{self.ordinal} {self.kind}"

    @property
    def write_index(self) -> int:
        return self.key // ORDINALS

    @property
    def ordinal(self) -> int:
        return self.key % ORDINALS

    @property
    def position(self) -> str:
        """The SSE id, `N.k`."""
        return f"{self.write_index}.{self.ordinal}"
