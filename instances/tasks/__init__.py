"""Commands that run once: one-off tasks, release commands, what cron entries start.

    states   the state machine            steps     what is next for one task (pure)
    models   the rows                     services  the verbs: run, cancel, begin a release command
    runner   the leader's loop            api       /app/<app>/run and /tasks

A task runs in one instance of its own, which the agents start like any other and never start twice.
"""
