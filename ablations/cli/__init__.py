"""The commands: parsing and printing, no logic. A command imports only what it needs.

The help lists them in the order of these imports: in the order of a study's life.
"""

# isort: off
from ablations.cli import run
from ablations.cli import foresee
from ablations.cli import look
from ablations.cli import clean
from ablations.cli import bench
from ablations.cli import bench_gpu
from ablations.cli import bench_scale
from ablations.cli import bench_start
from ablations.cli.app import main
# isort: on

__all__ = ["bench", "bench_gpu", "bench_scale", "bench_start", "clean", "foresee", "look", "main", "run"]
