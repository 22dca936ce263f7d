"""How long the agreement of arms takes, and how much memory; no test, since it is timed.

    .venv/bin/python tests/agreement_speed.py [ARMS SEEDS IMAGES]

Made-up cells, of 20 arms, 50 seeds and 10,000 test images if no numbers are given: 34,000 pairs of cells.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import pandas as pd

from ablations.analysis import agreement


def main(num_arms: int, num_seeds: int, num_images: int) -> None:
    """Measure one call, and print its seconds and the most MiB that the process had."""
    rng = np.random.default_rng(0)
    hardness, rows = rng.random(num_images), []
    for order in range(num_arms):
        keys = {"condition": "", "arm": f"a{order}", "arm_label": f"a{order}", "arm_order": order, "stale": False}
        right = hardness + rng.normal(0, 0.2, (num_seeds, num_images)) < 0.7
        rows += [{**keys, "seed": seed, "correct": own} for seed, own in enumerate(right)]
    started = time.perf_counter()
    agreement(pd.DataFrame(rows))
    seconds = time.perf_counter() - started
    print(f"{seconds:.1f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main(*(map(int, sys.argv[1:]) if len(sys.argv) > 1 else (20, 50, 10_000)))
