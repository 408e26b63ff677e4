"""Django's registration of the project itself: its management commands, and where a process reads the leadership."""

from django.apps import AppConfig
from django.conf import settings


class OmniConfig(AppConfig):
    name = "omni"
    label = "omni"

    def ready(self) -> None:
        from consensus import gate
        from consensus.lease import NoLease
        from consensus.page import PageLease

        config = settings.CONFIG
        # Only web workers write by what the daemon's page says. The daemon brings a lease of its own; a management
        # command has none, so that a verb called from a shell is refused even on the leader's host.
        lease = PageLease(config.node_dir(config.me) / "lease") if config.role == "web" else NoLease()
        gate.configure(lease, config.me.id)
