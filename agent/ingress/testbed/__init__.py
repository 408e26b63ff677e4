"""What the ingress's tests and benchmark run it against: real backends, a stand-in control plane, strict clients.

Owns nothing that the platform uses; nothing outside tests and `bench` may import it.
"""
