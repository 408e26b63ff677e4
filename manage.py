#!/usr/bin/env python
"""Django's command line for this project."""

import os
import sys


def main() -> None:
    os.umask(0o077)  # a new SQLite file holds hashes of tokens and the apps' logs
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
