"""Django's registration of this app."""

from django.apps import AppConfig


class InstancesConfig(AppConfig):
    name = "instances"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from apps import runtimes
        from instances import offered

        runtimes.answer_by(offered.missing)
