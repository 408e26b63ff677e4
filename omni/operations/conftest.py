"""The places of `omni.testing.places`."""

from omni.testing.places import blank, copied, fresh, mariadb, place, seeded

__all__ = ["blank", "copied", "fresh", "mariadb", "place", "seeded"]
