"""The ingress: one public port in front of every app, which serves on when all else is down.

Owns a Caddy with one static route, the DNS responder that tells it where instances are, the pages for hosts without
one, and the counting of requests. Must not know Django, the database, or anything of the control plane but
`agent.routing`: routes come by HTTP, are kept on disk, and are served from there when nobody answers.
"""
