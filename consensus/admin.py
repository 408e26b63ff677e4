"""The console's view of the fence. Stored replies hold sealed answers and are not shown."""

from consensus.models import Fence
from omni.console import register

register(Fence, columns=("id", "epoch", "write_index", "holder", "claimed_at", "cluster_id"))
