"""Calls from the platform to addresses that users name: where they may go, and how they are made.

`http.send` makes one call under the address policy; `webhooks` signs a message and says what an answer means;
`retries` says when to try again; `mail` sends one message by SMTP. Nothing here keeps state: whoever sends owns the
row that says what is still to be sent, because an effect follows a committed claim (DECISIONS 6).
"""
