"""Commands that somebody runs in an instance and talks to.

    states, models   the state machine and the rows       services  the verbs, and what members and agents say
    sweep            the leader's: what nobody ended      api       /app/<app>/instances/<id>/exec

The talk itself passes between the caller, his member (`omni.front.talks`) and the node's agent (`agent.sessions`);
nothing of it comes here.
"""
