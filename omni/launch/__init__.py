"""Starts, watches and stops the processes of the platform on one machine. No Django, little memory: it never ends."""
