"""What the fork server loads before the first cell; imported there alone.

The garbage collector is off while it loads, which would else walk again and again through what is only being made; and
all of it is frozen out of the collector's sight: a worker would walk through objects that it never made, and copy the
pages that they lie on.
"""

from __future__ import annotations

import gc
import importlib
import threading

from tqdm import tqdm

gc.disable()
for _name in ("ablations.engine.cell", "ablations.engine.worker", "ufo.model"):  # the first loads torch and Lightning
    importlib.import_module(_name)
tqdm.set_lock(threading.RLock())  # torch's compiler makes bars: the usual lock has a semaphore, which a worker leaves
gc.freeze()
gc.enable()
