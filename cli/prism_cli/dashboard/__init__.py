"""The live dashboard of a run: what is shown is worked out without a terminal, and drawn by a thin shell.

`history` remembers, `picture` holds what one look shows, `overview`, `crew`, `tallies` and `frame` turn it
into lines of a width, `follower` reads the topics in a thread of its own, `screen` is the Textual
application. Only `screen` and `dialogs` import textual, and only where a terminal is there to draw on.
"""
