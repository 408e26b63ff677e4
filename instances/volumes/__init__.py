"""Volumes: named directories of an app that outlive its instances and releases, each on one node.

    paths    where a program may find one (pure)     states    the state machine
    models   the rows                                services  the verbs: create, delete, what agents report
    api      /app/<app>/volumes                      representation  how they look

A volume lies on the disk of its node and nowhere else: its app is placed there or not at all.
"""
