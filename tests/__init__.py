"""Whole stories over HTTP against the real platform: real processes, queue, proxy and database."""
