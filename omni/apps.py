"""Django's registration of the project itself: its management commands, and where a process reads the leadership."""

from django.apps import AppConfig
from django.conf import settings

from consensus.elected import MemberLease
from consensus.lease import Lease, NoLease
from consensus.page import PageLease
from consensus.raft.page import RaftPage
from omni.kernel.config import Config


class OmniConfig(AppConfig):
    name = "omni"
    label = "omni"

    def ready(self) -> None:
        from consensus import gate

        config = settings.CONFIG
        gate.configure(_lease(config) if config.role == "web" else NoLease(), config.me.id)


def _lease(config: Config) -> Lease:
    """Only web workers write by what the daemon's page says. The daemon brings a lease of its own; a management
    command has none, so that a verb called from a shell is refused even on the leader's host."""
    folder = config.node_dir(config.me)
    page = PageLease(folder / "lease")
    if len(config.members) < 2:
        return page
    return MemberLease(config.me.netloc, page, RaftPage(folder / "raft.page"))
