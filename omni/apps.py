"""Django's registration of the project itself: its management commands, and the gate's lease."""

from django.apps import AppConfig
from django.conf import settings


class OmniConfig(AppConfig):
    name = "omni"
    label = "omni"

    def ready(self) -> None:
        from consensus import gate
        from consensus.page import PageLease

        config = settings.CONFIG
        gate.configure(PageLease(config.node_dir(config.me) / "lease"), config.me.id)
