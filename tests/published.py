"""Studies whose cells are published with given outcomes, for tests of the store and of the board."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ablations.config import CellConfig, Study, recipes
from ablations.config.expand import design
from ablations.store import Store, cell_name, write_text

OUTCOME = {
    "format": 1,
    "outcome": "ok",
    "kind": "",
    "detail": "",
    "test_accuracy_pct": 90.0,
    "test_loss": 0.3,
    "chance_pct": 10.0,
    "init_hash": "i",
    "split_hash": "s",
    "epoch_hashes": ["x", "y"],
    "epochs_run": 2,
    "device": "cpu",
    "seconds": 1.0,
    "peak_memory_mib": 1.0,
    "num_parameters": 7,
    "source_hash": "now",
    "numerics": "1",
    "attempts": [],
    "versions": {"torch": "2.11"},
}
HEADER = "epoch,lr_after,train_loss,val_loss,val_accuracy_pct,batches\n"


def fake(out: Path, outcomes: dict[tuple[str, int], dict], **asked: list) -> tuple[Store, list[CellConfig]]:
    """Write a study whose cells have the outcomes given by (norm, seed)."""

    def defaults(fields):
        return {**recipes.defaults(image_side=8, flips=False), "data_fingerprint": "f"}

    base = {"data": ["digits"], "norm": ["xnorm", "l2"], "seed": [0, 1]}
    study, cells = design(name="fake", asked=base | asked, compare="norm", ref=None, recipe="quick", defaults=defaults)
    store = Store(out / "fake")
    store.write_study(study)
    for cell in cells:
        if (cell.net.norm, cell.seed) in outcomes:
            publish(store, cell, study, OUTCOME | outcomes[cell.net.norm, cell.seed])
    return store, cells


def publish(store: Store, cell: CellConfig, study: Study, outcome: dict) -> Path:
    lease = store.leases.claim(cell.id)
    assert lease is not None
    write_text(lease.folder / "metrics.csv", HEADER + "1,0.1,2.0,1.9,30.0,x\n2,0.1,1.0,0.9,80.0,y\n")
    write_text(lease.folder / "probes.csv", "epoch,layer,probe,value\n1,a,p,1.5\n2,a,p,2.5\n")
    np.save(lease.folder / "correct.npy", np.arange(10) > 0)
    for name in ("log.txt", "timing.csv"):
        write_text(lease.folder / name, "")
    before = store.records().get(cell.id)
    return store.publish(lease, cell, outcome, name=cell_name(study.arm_of(cell), cell), replaces=before).folder


ALL_OK = {(norm, seed): {} for norm in ("xnorm", "l2") for seed in (0, 1)}
