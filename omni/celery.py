"""The Celery app: the doorbell between the relay and the build workers.

Configured by omni.kernel.config alone; loads neither Django nor a model, because workers hold no database. The build
row with its lease is the truth: what the broker loses, repeats or keeps too long changes nothing but the delay.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.apps import worker

from observing import journal
from omni.kernel import config as configuration

_MARGIN_S = 120  # the pipeline keeps the build's own limits; Celery's are for a pipeline that hangs


def _transport_options(broker: str, state: Path, longest_s: float) -> dict[str, Any]:
    if broker.startswith("filesystem:"):
        folder = state / "broker" / "messages"
        folder.mkdir(parents=True, exist_ok=True)
        return {"data_folder_in": str(folder), "data_folder_out": str(folder)}
    return {
        # A message that is not acknowledged for longer than the longest build is delivered again.
        "visibility_timeout": max(7200, int(2 * longest_s)),
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "health_check_interval": 25,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
    }


def _make() -> Celery:
    config = configuration.load_or_exit()
    # No fix-ups: with DJANGO_SETTINGS_MODULE around, Celery would set Django up, database and all.
    made = Celery("omni", broker=config.broker, include=["releases.tasks"], set_as_current=True, fixups=set())
    longest_s = config.limits.build_wall_s + _MARGIN_S
    made.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_track_started=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_soft_time_limit=int(longest_s),
        task_time_limit=int(longest_s) + 60,
        worker_prefetch_multiplier=1,
        worker_max_tasks_per_child=50,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport_options(config.broker, config.state, longest_s),
        enable_utc=True,
        timezone="UTC",
    )
    signals.setup_logging.connect(_log_as(config), weak=False)
    _outlive_the_broker()
    return made


def _outlive_the_broker() -> None:
    """A worker with a build under way survives its broker's death, and takes the next build when that is back.

    kombu 5.7 fails with AttributeError, which Celery takes for its own end, where a connection that is gone is to take
    messages back or to hear that one is done. Neither is needed: the relay announces whatever still waits.
    """
    from kombu.transport import redis

    class Messages(redis.QoS):  # type: ignore[misc]
        restore_at_shutdown = False

        def ack(self, delivery_tag: str) -> None:
            if self.channel.connection is not None:
                super().ack(delivery_tag)

        def reject(self, delivery_tag: str, requeue: bool = False) -> None:
            if self.channel.connection is not None:
                super().reject(delivery_tag, requeue)

    redis.Channel.QoS = Messages


def _log_as(config: configuration.Config) -> Callable[..., None]:
    """The worker logs as all of our processes do; of Celery's own words what --loglevel says."""

    def configure(loglevel: int | str = "WARNING", **_: Any) -> None:
        journal.configure("", loglevel or "WARNING", config.log_format)
        logging.getLogger("releases").setLevel(config.log_level)
        worker.safe_say = _say  # what it tells a terminal about its end

    return configure


def _say(message: str, _file: object = None) -> None:
    """In a signal handler: straight to the descriptor, as Celery does."""
    line = journal.shape(time.time(), "INFO", "celery", os.environ.get(journal.PROCESS, ""), message.strip())
    os.write(2, (json.dumps(line) if os.environ.get(journal.FORMAT) == "json" else message.strip()).encode() + b"\n")


app = _make()
