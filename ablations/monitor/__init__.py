"""The live state of a study: a board in the terminal, a bar in a notebook, or one line per finished cell."""
