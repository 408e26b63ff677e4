"""Raft: one process per member that agrees with the others on who leads (`python -m consensus.raft`).

`page` and `client` are how the other processes of the member read it and speak to it. Only `core` imports PySyncObj.
Nothing here knows Django or the database: what the platform believes is decided by the fence, not by Raft.
"""
