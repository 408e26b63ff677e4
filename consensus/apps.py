"""Django's registration; connects the write guard to every database connection."""

from django.apps import AppConfig


class ConsensusConfig(AppConfig):
    name = "consensus"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from consensus import idle_writers, write_guard

        write_guard.install()
        idle_writers.install()
