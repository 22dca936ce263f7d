"""Studies made up by hand: whole folders of finished cells, without any training."""

from __future__ import annotations

import bz2
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ablations.analysis import winners
from ablations.config import CellConfig, recipes
from ablations.config.claim import parse_claims
from ablations.config.expand import design
from ablations.config.search import FIRST_TRIAL_SEED, Point, Search, parse_search
from ablations.store import Store, cell_name
from ablations.store.frames import read_frames
from ablations.store.provenance import numerics_now
from ablations.training.callbacks import write_rows

NUM_IMAGES = 200
LAYERS = ("blocks.0.attn", "blocks.1.attn", "class_blocks.0.attn")
STORIES: dict[str, tuple[str, str, str]] = {
    "ok": ("ok", "", ""),
    "nan": ("diverged", "nan", "train_loss is not finite in epoch 1"),
    "exploded": ("diverged", "exploded", "train_loss 1e+06 in epoch 1, above 23.03"),
    "stuck": ("diverged", "no_learning", "validation cross-entropy stayed at chance"),
    "oom": ("failed", "oom", "OutOfMemoryError: no room"),
    "error": ("failed", "error", "RuntimeError: this arm is broken"),
}
"""What may become of a cell: outcome, kind, detail."""


def make_study(
    out: Path,
    *,
    name: str = "made_up",
    norms: Sequence[str] = ("xnorm", "l2", "single_l2"),
    compare: str = "norm",
    seeds: int = 4,
    epochs: int = 3,
    stories: Mapping[tuple[str, int], str] | None = None,
    missing: Sequence[tuple[str, int]] = (),
    claims: Sequence[Mapping[str, Any]] = (),
    question: str = "Which one trains?",
    log: str = "2026-01-01 INFO: epoch 1",
    numerics: str | None = None,
    search: Search | None = None,
    points: tuple[Point, ...] = (),
    probe_steps: Sequence[int] = (),
    **axes: list[Any],
) -> Path:
    """Write a study; cells by (arm, seed) may have other stories than ok, or be missing."""
    task = axes.get("task", ["classify"])[0]

    def defaults(fields: Mapping[str, Any]) -> dict[str, Any]:
        own = recipes.defaults(image_side=64 if task == "detect" else 8, flips=False, task=task)
        return {**own, "data_fingerprint": "f"}

    asked = {
        **{field: [value] for field, value in recipes.recipe_fields("quick", task).items()},
        "data": ["digits"],
        "epochs": [epochs],
    }
    asked |= {"warmup_epochs": [1], "norm": list(norms), "seed": list(range(seeds)), **axes}
    asked = {field: values for field, values in asked.items() if search is None or field not in search.fields}
    study, cells = design(
        name=name,
        asked=asked,
        compare=compare,
        ref=None,
        recipe="quick",
        defaults=defaults,
        question=question,
        claims=parse_claims([dict(claim) for claim in claims]),
        search=search,
        points=points,
    )
    store = Store(out / name)
    store.write_study(study)
    known = numerics_now(norms, task=task)
    for cell in cells:
        arm = study.arm_of(cell)
        if (arm, cell.seed) not in missing:
            story = (stories or {}).get((arm, cell.seed), "ok")
            folder = store.cells / cell_name(arm, cell)
            _write_cell(folder, cell, story, numerics or known[cell.net.norm], log)
            if probe_steps:
                _write_steps(folder, cell, story, probe_steps)
    return store.folder


SEARCH = "lr=1e-4..1e-1:log,weight_decay=0.01..0.2:log"


def make_tuned(
    out: Path,
    *,
    name: str = "tuned",
    norms: Sequence[str] = ("xnorm", "l2", "single_l2"),
    trials: int = 8,
    seeds: int = 4,
    stories: Mapping[tuple[str, int], str] | None = None,
    confirmed: bool = True,
    claims: Sequence[Mapping[str, Any]] = (),
    search: Search | None = None,
    **options: Any,
) -> Path:
    """Write a tuning, whose trials by (arm, number) may have other stories than ok, and the study of its winners."""
    search = search or parse_search(SEARCH)
    numbers = [FIRST_TRIAL_SEED + k for k in range(trials)]
    drawn = zip(numbers, search.points(trials), strict=True)
    told = {(arm, FIRST_TRIAL_SEED + k): story for (arm, k), story in (stories or {}).items()}
    more = {"norms": norms, "claims": claims, "search": search, **options}
    tuning = make_study(
        out / name,
        name="tuning",
        seed=numbers,
        scored_on=["val"],
        stories=told,
        points=tuple(Point(values=values, seed=seed) for seed, values in drawn),
        **more,
    )
    if not confirmed:
        return tuning
    best = winners(read_frames(Store(tuning), numerics=None).cells)
    points = tuple(Point(values={f: row[f] for f in search.fields}, arm=row["arm"]) for row in best.to_dict("records"))
    return make_study(out, name=name, seeds=seeds, points=points, **more)


def _write_cell(folder: Path, cell: CellConfig, story: str, numerics: str, log: str) -> None:
    folder.mkdir()
    rng = np.random.default_rng([cell.seed, len(cell.net.norm), round(1e6 * cell.optimisation.lr)])
    outcome, kind, detail = STORIES[story]
    num_epochs = cell.optimisation.epochs if story in ("ok", "stuck") else 1
    hashes = [f"{cell.seed:02d}{epoch:04d}" for epoch in range(num_epochs)]
    rows = [
        {
            "epoch": epoch + 1,
            "lr_after": cell.optimisation.lr,
            "train_loss": 1e6 if story == "exploded" else 2.3 / (epoch + 1) + 0.05 * rng.random(),
            "val_loss": 2.2 / (epoch + 1) + 0.05 * rng.random(),
            "val_accuracy_pct": 95 - 60 / (epoch + 1) + rng.normal(),
            "batches": hashes[epoch],
        }
        for epoch in range(num_epochs)
    ]
    write_rows(folder / "metrics.csv", rows)
    probes = [
        {"epoch": epoch + 1, "layer": layer, "probe": probe, "value": float(rng.lognormal())}
        for epoch in range(num_epochs)
        for layer in LAYERS
        for probe in ("output_rms", "grad_norm", *(["mean_gain_q"] if cell.net.norm == "xnorm" else []))
    ]
    write_rows(folder / "probes.csv", probes)
    write_rows(folder / "timing.csv", [{"epoch": epoch + 1, "seconds": 12.0} for epoch in range(num_epochs)])
    accuracy = None
    if cell.run.scored_on == "test" and story in ("ok", "stuck"):
        share = 0.1 if story == "stuck" else 0.93 - 0.01 * len(cell.net.norm)
        correct = np.random.default_rng(cell.seed).random(NUM_IMAGES) < share + 0.02 * rng.normal()
        np.save(folder / "correct.npy", correct)
        accuracy = 100 * float(correct.mean())
    record = {
        "format": 1,
        "cell": cell.id,
        "outcome": outcome,
        "kind": kind,
        "detail": detail,
        "traceback": [],
        "attempts": [],
        "test_accuracy_pct": accuracy,
        "test_loss": None if accuracy is None else 0.3,
        "val_accuracy_pct": _validated(cell, story),
        "val_loss": 0.3 if story in ("ok", "stuck") else None,
        "chance_pct": 10.0,
        "init_hash": f"i{cell.seed}",
        "split_hash": "s",
        "epoch_hashes": hashes,
        "epochs_run": num_epochs,
        "resumed_after_epochs": [],
        "num_parameters": 100_000 + 24 * (cell.net.norm == "xnorm"),
        "started": "2026-01-01T00:00:00+00:00",
        "device": "cpu",
        "seconds": 36.0,
        "peak_memory_mib": 500.0,
        "source_hash": "s",
        "numerics": numerics,
        "git": {"revision": "0123456789abcdef", "dirty": False},
        "versions": {"python": "3.11.0", "torch": "2.15.0"},
        "machine": {"system": "Linux", "processor": "a processor", "cores": 2},
    }
    if cell.task == "detect":
        record |= {"test_accuracy_pct": None, "val_accuracy_pct": None, "val_loss": None, "chance_pct": 0.0}
        record |= _detected(folder, cell, story)
    (folder / "outcome.json").write_text(json.dumps(record))
    (folder / "config.json").write_text(cell.model_dump_json())
    (folder / "log.txt").write_text(log + "\n")


def _write_steps(folder: Path, cell: CellConfig, story: str, steps: Sequence[int]) -> None:
    """Write the probes of single steps; one that is not finite in the end is so from the third of them on."""
    rng = np.random.default_rng([cell.seed, len(cell.net.norm), 1])
    is_lost = story in ("nan", "exploded")
    rows = [
        {"step": step, "layer": layer, "probe": probe, "value": math.nan if is_lost and i > 1 else float(value)}
        for i, step in enumerate(steps[:4] if is_lost else steps)
        for layer, probe, value in [
            ("", "loss", 2.3 - 0.1 * i),
            *((layer, probe, rng.lognormal()) for layer in LAYERS for probe in ("output_rms", "grad_norm")),
        ]
    ]
    write_rows(folder / "steps.csv", rows)


def _detected(folder: Path, cell: CellConfig, story: str) -> dict[str, float]:
    """Write what a detector leaves, and return its average precisions; there is no large object."""
    kinds = ("box", "mask") if cell.detection.masks else ("box",)
    rng = np.random.default_rng([cell.seed, len(cell.net.norm)])
    (folder / "correct.npy").unlink(missing_ok=True)
    rows = [
        {
            "epoch": epoch + 1,
            "lr_after": cell.optimisation.lr,
            "train_loss": 3 / (epoch + 1),
            **{f"val_{kind}_ap_pct": 40 - 2 * place - 20 / (epoch + 1) for place, kind in enumerate(kinds)},
            "batches": f"{cell.seed:02d}{epoch:04d}",
        }
        for epoch in range(cell.optimisation.epochs if story in ("ok", "stuck") else 1)
    ]
    write_rows(folder / "metrics.csv", rows)
    if story not in ("ok", "stuck"):
        return {}
    precision = [
        {"kind": kind, "iou": iou, "recall": place / 100, "precision": max(0.0, 1 - place / 100 - iou / 4)}
        for kind in kinds
        for iou in (0.5, 0.75)
        for place in range(101)
    ]
    write_rows(folder / "precision.csv", precision)
    box = {"image_id": 7, "category_id": 3, "bbox": [4.0, 5.0, 20.0, 10.0]}
    outline = [[4.0, 5.0, 24.0, 5.0, 24.0, 15.0, 4.0, 15.0]] if cell.detection.masks else []
    truth = {
        "images": [{"id": 7, "height": 30, "width": 40, "file_name": ""}, {"id": 8, "height": 30, "width": 40}],
        "annotations": [{**box, "id": 1, "iscrowd": 0, "area": 200.0, "segmentation": outline}],
        "categories": [{"id": 3, "name": "kite"}],
    }
    found = [{**box, "score": score, **({"segmentation": outline} if outline else {})} for score in (0.9, 0.3)]
    (folder / "examples").mkdir()
    (folder / "examples" / "truth.json").write_text(json.dumps(truth))
    (folder / "detections.json.bz2").write_bytes(bz2.compress(json.dumps(found).encode()))
    for image in (7, 8):
        Image.new("RGB", (40, 30), "teal").save(folder / "examples" / f"{image}.jpg")
    figures = {
        f"{kind}_ap{at}_pct": 30 + level + rng.normal()
        for kind in kinds
        for at, level in (("", 0), ("50", 20), ("75", -5), ("_small", -10), ("_medium", 5))
    }
    return {f"test_{name}": value for name, value in figures.items()} | {f"val_{kinds[-1]}_ap_pct": 31.0}


def _validated(cell: CellConfig, story: str) -> float | None:
    """Return a validation accuracy that is best at a learning rate of 3e-3."""
    if story == "stuck":
        return 11.0
    return 92.0 - len(cell.net.norm) - 12 * math.log10(cell.optimisation.lr / 3e-3) ** 2 if story == "ok" else None
