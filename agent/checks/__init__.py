"""Checks of internal services, as this node sees them: what to ask, asking it, and telling the control plane.

Owns one vantage point. What all of them together mean is decided by the leader (`services.decision`), not here. A
service that fails touches no instance: nothing in here knows of instances, and nothing there waits for a check.
"""
