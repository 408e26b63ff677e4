"""The console's own pages: `/admin/` and what lies under it, besides the plain tables of Django's admin.

Owns what a page shows and which buttons it has. Reads through the same access functions and shapes as the API; changes
nothing itself: a button is a call of the API (`acting`), made in this process with the session's rights.
"""
