"""Cron entries: commands of an app that are due by a schedule.

schedule  when something is due: expressions, time zones, daylight saving (pure)
due       what to do about due times that have come: start, missed, next (pure)
models    the rows            services  the verbs        clockwork  the leader's loop
api       /app/<app>/cron
"""
