"""Tuning: every arm at its own best, on an equal budget."""
