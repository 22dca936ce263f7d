"""Figures as pure functions `(frame, axes) -> axes`, without global style, files or windows."""
