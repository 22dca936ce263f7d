"""The commands: parsing and printing, no logic. What a command does not need is not imported."""

from ablations.cli import bench, clean, look, run
from ablations.cli.app import main

__all__ = ["bench", "clean", "look", "main", "run"]
