"""The fence, and the answers kept for repeated requests.

Owns the two tables behind the gate. Nothing here is written but by `fence.py` and `gate.py`.
"""

from __future__ import annotations

from django.db import models


class Fence(models.Model):
    """One row, id 1: who may write (`epoch`), how many writes there were (`write_index`), whose database this is."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    cluster_id = models.CharField(max_length=64)
    epoch = models.BigIntegerField(default=0)
    write_index = models.BigIntegerField(default=0)
    holder = models.CharField(max_length=80, default="")
    claim_id = models.CharField(max_length=32, default="")
    writer = models.BigIntegerField(default=0)  # the connection (or process) that wrote last, for a claimer to kill
    claimed_at = models.DateTimeField(null=True)
    rights_index = models.BigIntegerField(db_default=0)  # the write that last changed who may do what

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="consensus_fence_is_one_row")]

    def __str__(self) -> str:
        return f"epoch {self.epoch}, write index {self.write_index}, held by {self.holder or 'nobody'}"


class StoredReply(models.Model):
    """The first answer to an Idempotency-Key, written in the transaction of the change that it answers."""

    id = models.BigAutoField(primary_key=True)
    scope = models.CharField(max_length=64, unique=True)  # sha256 of principal and key
    fingerprint = models.CharField(max_length=64)  # sha256 of method, path, query, canonical body
    status = models.PositiveSmallIntegerField()
    body = models.TextField()  # sealed: an answer may show a token once
    etag = models.CharField(max_length=80, default="")
    location = models.CharField(max_length=300, default="")
    write_index = models.BigIntegerField()
    created_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.status} at {self.write_index}"
