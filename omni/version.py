"""The version of this code, as members, backups and `/health` tell it."""

VERSION = "0.1.0"
