"""Dictionaries of other tools, read from their files. One module a format; `reading` finds it."""
