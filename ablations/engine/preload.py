"""Modules that the fork server imports before the first cell; import this only there.

No garbage is collected meanwhile, and the loaded objects are frozen: a worker's collector would copy their pages.
"""

from __future__ import annotations

import gc
import importlib
import threading

from tqdm import tqdm

gc.disable()
for _name in ("ablations.engine.cell", "ablations.engine.worker", "ufo.model"):  # the first loads torch and Lightning
    importlib.import_module(_name)
tqdm.set_lock(threading.RLock())  # for torch's compiler: tqdm's default lock has a semaphore, which a worker would leak
gc.freeze()
gc.enable()
