"""The commands: parsing and printing, no logic. What a command does not need is not imported.

The help lists them in the order of these imports: as one comes to need them.
"""

# isort: off
from ablations.cli import run
from ablations.cli import tune
from ablations.cli import look
from ablations.cli import clean
from ablations.cli import bench
from ablations.cli.app import main
# isort: on

__all__ = ["bench", "clean", "look", "main", "run", "tune"]
