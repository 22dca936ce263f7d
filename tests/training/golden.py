"""Golden values of the numerics: what is drawn, by hash, and the losses of the first three steps.

    .venv/bin/python tests/training/golden.py

measures them anew and writes ``golden_steps.json``. A value that changes needs a higher version of its task in
``ablations/study/numerics.py`` first, and a higher version needs a value that changes; a new case needs neither.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image

from ablations.config import CellConfig, recipes
from ablations.config.make import make_config
from ablations.config.numerics import NUMERICS
from ablations.data import DataInfo, find_objects, find_source, prepare, prepare_objects
from ablations.data.modules import make_data
from ablations.engine.threads import cpu_threads
from ablations.tasks.make import make_module
from ablations.training.loop import LeanTrainer
from ufo.norms import NORMS

FILE = Path(__file__).with_name("golden_steps.json")
STEPS = 3
RTOL = 1e-5
"""Processors sum in other orders."""

SMALL: dict[str, Any] = {"model": "ufo_vit_pico", "batch_size": 16}
MIXED = {"mixup": 0.8, "cutmix": 1.0, "mix_probability": 0.7, "erasing": 0.5}
TINY = {"fpn_dim": 16, "box_dim": 32, "mask_dim": 16, "rois": 16, "proposals": 40, "most_found": 10, "patch": 8}

Values = dict[str, Any]


def classify_cases() -> dict[str, tuple[str, str, Values]]:
    """Return name to data, recipe and fields."""
    cases: dict[str, tuple[str, str, Values]] = {
        f"norm {norm}": ("digits", "quick", {"norm": norm}) for norm in OUR_NORMS
    }
    cases |= {f"recipe {recipe}": ("photos", recipe, SMALL) for recipe in recipes.FOR_TASK["classify"]}
    cases |= {
        "mixing": ("digits", "quick", MIXED),
        "drop path": ("digits", "quick", {"drop_path": 0.3}),
        "moving average": ("digits", "quick", {"ema_decay": 0.9}),
        "matched scale": ("digits", "quick", {"norm": "l2", "scale": "matched"}),
        "warm-up and falls in steps": (
            "digits",
            "quick",
            {"warmup_epochs": 0, "warmup_steps": 2, "warmup_lr_share": 0.1, "schedule": "1+2"},
        ),
        "another body": (
            "digits",
            "quick",
            {"patch_embed": "linear", "pos_embed": "sincos", "lpi": "bn_first", "class_attention": 0, "depth": 3},
        ),
        "random resized crops": ("photos", "quick", SMALL | {"augment": "resized_crop_flip", "color_jitter": 0.4}),
        "repeats": ("photos", "quick", SMALL | {"repeats": 2}),
        "rand_augment": ("photos", "quick", SMALL | {"policy": "rand_augment"}),
        "auto_augment": ("photos", "quick", SMALL | {"policy": "auto_augment"}),
        "auto_augment_cifar": ("photos", "quick", SMALL | {"policy": "auto_augment_cifar"}),
        "streamed": ("streamed", "quick", SMALL),
        "streamed rand_augment": ("streamed", "quick", SMALL | {"policy": "rand_augment", "color_jitter": 0.4}),
        "streamed resized crops": ("streamed", "deit", SMALL),
    }
    return cases


def detect_cases() -> dict[str, tuple[str, str, Values]]:
    """Return name to data, recipe and fields."""
    small = TINY | {"batch_size": 4, "train_sides": "48+64", "eval_side": 64, "longest_side": 96}
    small |= {"lr": 1e-4}  # at a higher one a last bit soon puts one proposal in another's place
    cases: dict[str, tuple[str, str, Values]] = {
        f"recipe {recipe}": ("objects", recipe, small) for recipe in recipes.FOR_TASK["detect"]
    }
    cases["single_l2, BatchNorm of the batch, drop path"] = (
        "objects",
        "quick",
        small | {"norm": "single_l2", "batch_norm": "sync", "drop_path": 0.2, "augment": "none"},
    )
    return cases


OUR_NORMS = [spec.name for spec in NORMS.values() if spec.cls.__module__.startswith("ufo.")]
CASES = {"classify": classify_cases(), "detect": detect_cases()}


class _Enough(Exception):
    """Three steps are done."""


class _Losses(pl.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(outputs["loss"].item())

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        raise _Enough


def infos(folder: Path) -> dict[str, DataInfo]:
    """Return the data of all cases, whose pixels numpy alone decides: Pillow's versions draw otherwise.

    Args:
        folder: an empty one, in which they are written.
    """
    from conftest import write_images

    nowhere = Path("/")
    photos = write_images(folder / "photos", {"train": 80, "test": 10}, px=32)
    source = find_source(f"imagefolder:{photos}", data_root=nowhere, download=False, image_size=None)
    return {
        "digits": prepare(find_source("digits", data_root=nowhere, download=False, image_size=None)),
        "photos": prepare(source),
        "streamed": prepare(source, in_memory="off"),
        "objects": prepare_objects(find_objects(f"coco:{write_objects(folder / 'objects')}", image_size=None)),
    }


def write_objects(root: Path) -> Path:
    """Write 16 images of 64 px with two rectangles each in COCO's layout, and 4 to test on; return the folder."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for year, count in (("train2017", 16), ("val2017", 4)):
        (root / year).mkdir()
        content: dict[str, list[Any]] = {"images": [], "annotations": []}
        content["categories"] = [{"id": number, "name": f"shade {number}"} for number in (1, 2, 3)]
        for number in range(1, count + 1):
            pixels = rng.integers(0, 60, (64, 64, 3))
            for _ in range(2):
                (left, top), (width, height) = rng.integers(0, 30, 2).tolist(), rng.integers(12, 33, 2).tolist()
                shade = int(rng.integers(1, 4))
                pixels[top : top + height, left : left + width] = 60 * shade
                right, bottom = left + width, top + height
                found = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": shade, "iscrowd": 0}
                found |= {"bbox": [left, top, width, height], "area": width * height}
                corners = [left, top, right, top, right, bottom, left, bottom]
                content["annotations"].append({**found, "segmentation": [corners]})
            name = f"{number:012}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(root / year / name)
            content["images"].append({"id": number, "file_name": name, "height": 64, "width": 64})
        (root / "annotations" / f"instances_{year}.json").write_text(json.dumps(content))
    return root


def config_of(info: DataInfo, task: str, recipe: str, fields: Values) -> CellConfig:
    """Return the cell of a case: an epoch of it has three steps."""
    base = recipes.defaults(
        image_side=min(info.image_shape[:2]),
        flips=info.name != "digits",
        task=task,
        recipe=recipe,
        streamed=info.streamed,
    )
    own = {"task": task, "data": info.name, "data_fingerprint": info.fingerprint, "streamed": info.streamed}
    given = (
        base | own | {"norm": "xnorm", "seed": 0, "smoke": True} | ({"scored_on": "val"} if task == "detect" else {})
    )
    given |= fields
    return make_config(given | {"train_limit": STEPS * given["batch_size"]})


def measure(info: DataInfo, task: str, recipe: str, fields: Values) -> Values:
    """Train three steps; return hashes of what was drawn, losses, and what validation comes to."""
    config = config_of(info, task, recipe, fields)
    module, data, losses = make_module(config, info), make_data(config, info), _Losses()
    weights = _hash(module.net.state_dict())
    with tempfile.TemporaryDirectory() as folder, cpu_threads(1):
        lean = LeanTrainer(config, device=torch.device("cpu"), callbacks=[losses], log_dir=Path(folder))
        try:
            lean.fit(module, data)
        except _Enough:
            pass
        finally:
            data.teardown()
    drawn = {"weights": weights, "epoch": module.epoch_hashes[0], "split": data.split_hash}
    if (keep := getattr(module, "_keep", None)) is not None:
        drawn["drop_path"] = _hash({"keep": keep})
    means = module.epoch_metrics()
    if task == "detect":
        means = {name: value for name, value in means.items() if name.startswith("train_loss_")}
    else:
        means = {"val_loss": means["val_loss"]}
    return {"drawn": drawn, "losses": {"steps": losses.losses, **means}}


def _hash(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def changes(older: Values, newer: Values) -> list[str]:
    """Name what differs between a case's values: draws exactly, losses beyond rounding."""
    found = [f"drawn {name}" for name, value in older["drawn"].items() if newer["drawn"].get(name) != value]
    for name, value in older["losses"].items():
        other = newer["losses"].get(name, math.nan)
        a, b = (x if isinstance(x, list) else [x] for x in (value, other))
        if len(a) != len(b) or not all(math.isclose(x, y, rel_tol=RTOL) for x, y in zip(a, b, strict=True)):
            found.append(f"{name}: {value} became {other}")
    return found


def faults(older: Mapping[str, Any], newer: Mapping[str, Any]) -> Iterator[str]:
    """Say where a version was not raised though a value changed or went, or was raised though none did.

    Args:
        older: content of golden_steps.json.
        newer: likewise, later.
    """
    for task in NUMERICS:
        before, after = older[task]["values"], newer[task]["values"]
        changed = [case for case in before if case not in after or changes(before[case], after[case])]
        raised = newer[task]["version"] - older[task]["version"]
        if changed and raised != 1:
            yield f"{task}: the values of {', '.join(changed)} changed; raise its version by one"
        if raised and not changed:
            yield f"{task}: its version was raised, and no value changed"


def main() -> None:
    """Measure every case anew, and write the file."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    with tempfile.TemporaryDirectory() as scratch:
        known = infos(Path(scratch))
        measured: dict[str, Any] = {
            task: {
                "version": NUMERICS[task],
                "values": {name: measure(known[data], task, *rest) for name, (data, *rest) in cases.items()},
            }
            for task, cases in CASES.items()
        }
    if FILE.exists() and (found := list(faults(json.loads(FILE.read_text()), measured))):
        sys.exit("\n".join(["golden_steps.json is left as it is:", *found]))
    FILE.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
