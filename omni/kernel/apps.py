"""Django's registration of the kernel: the event table is its only model."""

from django.apps import AppConfig


class KernelConfig(AppConfig):
    name = "omni.kernel"
    label = "kernel"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Events"
