"""The live state of a study: a board in the terminal, or one line per finished cell."""
