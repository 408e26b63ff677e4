"""What an operator does to a whole cluster: look at it, take a database over, put it back.

Each command of `manage.py` that begins with `cluster_` is thin; the work is here and in `omni.backup`.
"""

from __future__ import annotations


class Refused(Exception):
    """It is not done, and nothing was changed unless the text says so; the text names the way out."""
