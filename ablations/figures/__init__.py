"""Figures: each a pure function `(frame, axes) -> axes`, without global style, file or show."""
