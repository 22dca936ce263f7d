"""What the fork server loads before the first cell; imported there alone.

Everything is frozen out of the garbage collector's sight: a worker would else walk through some million objects that it
never made, and copy the pages that they lie on.
"""

from __future__ import annotations

import gc

import ablations.engine.cell as _cell  # noqa: F401  # loads torch and Lightning
import ablations.engine.worker as _worker  # noqa: F401

gc.collect()
gc.freeze()
