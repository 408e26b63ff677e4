"""The `omni` command.

Owns talking to people and scripts about the platform. Speaks the public HTTP API and nothing else: must not import
Django or anything of the server's. Imports at module level only what `omni --help` needs; each TAB completion pays for
it.
"""
