"""The conventions of every HTTP answer: problems, paging, entity tags, idempotent writes, numbered answers.

Knows no domain; the apps' views are built on it. Stands above `consensus` and below `accounts`.
"""
