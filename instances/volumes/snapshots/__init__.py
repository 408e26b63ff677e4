"""Snapshots of volumes, and restores from them: made by the node's agent, kept by the artifact storage.

states   the two state machines         models     the rows
services what people ask for            jobs       what agents are told and tell
holding  what may not start meanwhile   sweep      the leader's loop: what nobody ends, what nobody wants any more
api      /app/<app>/…/snapshots, …/restores        api_agent  where agents bring archives
"""
