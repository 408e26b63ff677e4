"""The daemon of a member: holds the lease, and on the leader runs what only the leader may run.

One process per member, apart from the web workers. `manage.py daemon` starts it.
"""
