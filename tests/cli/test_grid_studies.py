"""Studies that are no product, as a user has them: run, extended, reported, asked for again.

Cells and conditions equal lists that were written by hand, and the id of each cell that of a study of this cell alone.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ablations.config.commands import RunOptions
from ablations.config.request import make_request
from ablations.planning.plan import make_plan
from ablations.store import Store

BASE = {"seeds": "0,", "norm": "xnorm,l2", "epochs": 1, "warmup_epochs": 0, "train_limit": 64, "model": "ufo_vit_pico"}


@dataclass(frozen=True)
class Case:
    """A study, the cells that it has, how it is extended, and the cells that come by that.

    Args:
        content: what the experiment file says beside `BASE`.
        fields: fields that differ between cells, in the order of `cells`.
        cells: values of these fields, the name of the condition, and the seed unless it is 0.
        more: what the extended file says beside that.
        options: options of the extending command.
        added: values of the fields, the condition and the seed of the cells that come.
        renamed: what the extension appends to the names of the first conditions.
        differs: what the report says of arms that differ in more than the compared field.
    """

    content: dict
    fields: tuple[str, ...]
    cells: list[tuple]
    added: list[tuple]
    more: dict | None = None
    options: tuple = ()
    renamed: str = ""
    differs: str = ""


ZIPPED = {
    "norm": "xnorm,l2", "depth": [1, 2, 2], "lr": [0.001, 0.001, 0.003], "zip": "depth,lr",
}  # fmt: skip
CASES = {
    "zip": Case(
        content=ZIPPED,
        fields=("norm", "depth", "lr"),
        cells=[
            ("xnorm", 1, 0.001, "depth=1, lr=0.001"),
            ("xnorm", 2, 0.001, "depth=2, lr=0.001"),
            ("xnorm", 2, 0.003, "depth=2, lr=0.003"),
            ("l2", 1, 0.001, "depth=1, lr=0.001"),
            ("l2", 2, 0.001, "depth=2, lr=0.001"),
            ("l2", 2, 0.003, "depth=2, lr=0.003"),
        ],
        more={"depth": [1, 2, 2, 3], "lr": [0.001, 0.001, 0.003, 0.002]},
        added=[("xnorm", 3, 0.002, "depth=3, lr=0.002", 0), ("l2", 3, 0.002, "depth=3, lr=0.002", 0)],
    ),
    "zip with the arm": Case(
        content={"norm": "xnorm", "compare": "depth", "depth": "1,2", "lr": "1e-3,3e-3", "zip": "depth,lr"},
        fields=("depth", "lr"),
        cells=[(1, 0.001, ""), (2, 0.003, "")],
        options=("--seeds", "0-1"),
        added=[(1, 0.001, "", 1), (2, 0.003, "", 1)],
        differs="Arms differ in more than depth, and a difference may come from either: in lr. 1 has lr=0.001; "
        "2 has lr=0.003.",
    ),
    "zip of three": Case(
        content={
            "depth": "1,2",
            "lr": "1e-3,3e-3",
            "grad_clip": "0,1",
            "num_heads": "2,4",
            "zip": "depth,lr,grad_clip",
        },
        fields=("norm", "depth", "lr", "grad_clip", "num_heads"),
        cells=[
            (norm, *paired, heads, f"grad_clip={paired[2]}, depth={paired[0]}, lr={paired[1]}, num_heads={heads}")
            for norm in ("xnorm", "l2")
            for paired in ((1, 0.001, 0.0), (2, 0.003, 1.0))
            for heads in (2, 4)
        ],
        options=("--norm", "none", "--set", "num_heads=2"),
        added=[
            ("none", 1, 0.001, 0.0, 2, "grad_clip=0.0, depth=1, lr=0.001, num_heads=2", 0),
            ("none", 2, 0.003, 1.0, 2, "grad_clip=1.0, depth=2, lr=0.003, num_heads=2", 0),
        ],
    ),
    "exclude": Case(
        content={"lr": "1e-3,3e-3", "exclude": [{"norm": "l2", "lr": "3e-3"}]},
        fields=("norm", "lr"),
        cells=[("xnorm", 0.001, "lr=0.001"), ("xnorm", 0.003, "lr=0.003"), ("l2", 0.001, "lr=0.001")],
        options=("--seeds", "1-2"),
        added=[
            (norm, lr, f"lr={lr}", seed)
            for norm, lr in (("xnorm", 0.001), ("xnorm", 0.003), ("l2", 0.001))
            for seed in (1, 2)
        ],
    ),
    "exclude twice": Case(
        content={
            "norm": "xnorm,l2,none",
            "lr": "1e-3,3e-3",
            "exclude": [{"norm": "l2", "lr": "1e-3"}, {"norm": "none", "lr": "3e-3"}],
        },
        fields=("norm", "lr"),
        cells=[
            ("xnorm", 0.001, "lr=0.001"),
            ("xnorm", 0.003, "lr=0.003"),
            ("l2", 0.003, "lr=0.003"),
            ("none", 0.001, "lr=0.001"),
        ],
        more={"exclude": [{"norm": "none", "lr": "3e-3"}]},
        added=[("l2", 0.001, "lr=0.001", 0)],
    ),
    "exclude over three axes": Case(
        content={"lr": "1e-3,3e-3", "depth": "1,2", "exclude": [{"norm": "l2", "lr": "3e-3", "depth": "1,2"}]},
        fields=("norm", "lr", "depth"),
        cells=[
            *(("xnorm", lr, depth, f"lr={lr}, depth={depth}") for lr in (0.001, 0.003) for depth in (1, 2)),
            *(("l2", 0.001, depth, f"lr=0.001, depth={depth}") for depth in (1, 2)),
        ],
        options=("--norm", "none", "--set", "depth=1"),
        more={"norm": "xnorm,l2,none"},
        added=[("none", 0.001, 1, "lr=0.001, depth=1", 0), ("none", 0.003, 1, "lr=0.003, depth=1", 0)],
    ),
    "grids": Case(
        content={"grids": [{"lr": "1e-3,3e-3"}, {"norm": "xnorm,none", "lr": "1e-2"}]},
        fields=("norm", "lr", "depth"),
        cells=[
            ("xnorm", 0.001, None, "lr=0.001"),
            ("xnorm", 0.003, None, "lr=0.003"),
            ("l2", 0.001, None, "lr=0.001"),
            ("l2", 0.003, None, "lr=0.003"),
            ("xnorm", 0.01, None, "lr=0.01"),
            ("none", 0.01, None, "lr=0.01"),
        ],
        more={"grids": [{"lr": "1e-3,3e-3"}, {"norm": "xnorm,none", "lr": "1e-2"}, {"lr": "1e-3", "depth": 3}]},
        renamed=", depth=none",
        added=[("xnorm", 0.001, 3, "lr=0.001, depth=3", 0), ("l2", 0.001, 3, "lr=0.001, depth=3", 0)],
    ),
    "grids with seeds of their own": Case(
        content={"grids": [{"lr": "1e-3"}, {"lr": "3e-3", "seeds": "1,"}]},
        fields=("norm", "lr"),
        cells=[
            ("xnorm", 0.001, "lr=0.001"),
            ("l2", 0.001, "lr=0.001"),
            ("xnorm", 0.003, "lr=0.003", 1),
            ("l2", 0.003, "lr=0.003", 1),
        ],
        options=("--seeds", "0-1"),
        added=[
            ("xnorm", 0.003, "lr=0.003", 0),
            ("l2", 0.003, "lr=0.003", 0),
            ("xnorm", 0.001, "lr=0.001", 1),
            ("l2", 0.001, "lr=0.001", 1),
        ],
    ),
    "grids that are zipped": Case(
        content={
            "grids": [
                {"depth": "1,2", "lr": "1e-3,3e-3", "zip": "depth,lr"},
                {"depth": 1, "lr": "3e-3", "exclude": [{"norm": "xnorm"}]},
            ]
        },
        fields=("norm", "depth", "lr"),
        cells=[
            ("xnorm", 1, 0.001, "depth=1, lr=0.001"),
            ("xnorm", 2, 0.003, "depth=2, lr=0.003"),
            ("l2", 1, 0.001, "depth=1, lr=0.001"),
            ("l2", 2, 0.003, "depth=2, lr=0.003"),
            ("l2", 1, 0.003, "depth=1, lr=0.003"),
        ],
        options=("--seeds", "0-1"),
        added=[
            ("xnorm", 1, 0.001, "depth=1, lr=0.001", 1),
            ("xnorm", 2, 0.003, "depth=2, lr=0.003", 1),
            ("l2", 1, 0.001, "depth=1, lr=0.001", 1),
            ("l2", 2, 0.003, "depth=2, lr=0.003", 1),
            ("l2", 1, 0.003, "depth=1, lr=0.003", 1),
        ],
    ),
    "per arm": Case(
        content={"lr": "1e-3", "per_arm": {"l2": {"lr": "3e-3"}}},
        fields=("norm", "lr"),
        cells=[("xnorm", 0.001, ""), ("l2", 0.003, "")],
        more={"norm": "xnorm,l2,none", "per_arm": {"l2": {"lr": "3e-3"}, "none": {"lr": "2e-3"}}},
        added=[("none", 0.002, "", 0)],
        differs="Arms differ in more than norm, and a difference may come from either: in lr. xnorm has lr=0.001; "
        "l2 has lr=0.003; none has lr=0.002.",
    ),
    "two fields per arm": Case(
        content={"depth": "1,2", "per_arm": {"l2": {"lr": "3e-3", "weight_decay": 0.1}, "xnorm": {"lr": "2e-3"}}},
        fields=("norm", "lr", "weight_decay", "depth"),
        cells=[
            ("xnorm", 0.002, 0.05, 1, "depth=1"),
            ("xnorm", 0.002, 0.05, 2, "depth=2"),
            ("l2", 0.003, 0.1, 1, "depth=1"),
            ("l2", 0.003, 0.1, 2, "depth=2"),
        ],
        options=("--seeds", "0-1"),
        added=[
            *(("xnorm", 0.002, 0.05, depth, f"depth={depth}", 1) for depth in (1, 2)),
            *(("l2", 0.003, 0.1, depth, f"depth={depth}", 1) for depth in (1, 2)),
        ],
        differs="in lr, weight_decay. xnorm has lr=0.002, weight_decay=0.05; l2 has lr=0.003, weight_decay=0.1.",
    ),
    "per arm of another field": Case(
        content={"norm": "xnorm", "compare": "lpi", "lpi": "on,off", "per_arm": {"off": {"lr": "3e-3"}}, "lr": "1e-3"},
        fields=("lpi", "lr"),
        cells=[(True, 0.001, ""), (False, 0.003, "")],
        options=("--seeds", "0-1"),
        added=[(True, 0.001, "", 1), (False, 0.003, "", 1)],
        differs="Arms differ in more than lpi, and a difference may come from either: in lr. on has lr=0.001; "
        "off has lr=0.003.",
    ),
}
SHORT = ("zip with the arm", "exclude", "grids", "per arm")


def found(folder: Path) -> dict[str, tuple[str, int]]:
    """Condition and seed of every cell by its id, as results.csv has them."""
    table = pd.read_csv(folder / "results.csv", keep_default_na=False)
    return {row["cell"]: (row["condition"], row["seed"]) for row in table.to_dict("records")}


def expected(case: Case, out: Path, *, extended: bool) -> dict[str, tuple[str, int]]:
    """Condition and seed by id, each id from a study of that cell alone."""
    rows = [(*row, 0) for row in case.cells if not isinstance(row[-1], int)]
    rows += [row for row in case.cells if isinstance(row[-1], int)]
    if extended:
        rows = [(*row[:-2], row[-2] + case.renamed, row[-1]) for row in rows] + case.added
    places = {}
    for *values, condition, seed in rows:
        single = BASE | {field: case.content[field] for field in ("norm",) if field in case.content}
        single = {f: v for f, v in single.items() if f != "seeds"} | dict(zip(case.fields, values, strict=True))
        plan = make_plan(make_request(RunOptions(fields=single, seeds=f"{seed},", study="alone", out=out)))
        (cell,) = plan.cells
        places[cell.id] = (condition, seed)
    return places


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_study_that_is_no_product_is_run_extended_reported_and_asked_for_again(cli, tmp_path, name, full):
    if name not in SHORT and not full:
        pytest.skip("one case of each kind; --full runs all")
    case = CASES[name]
    file, folder = tmp_path / "asked.yaml", tmp_path / "s"
    run = ("run", "--experiment", file, "--study", "s", "--out", tmp_path)
    file.write_text(yaml.safe_dump(BASE | case.content, sort_keys=False))
    code, out, err = cli(*run)
    assert code == 0, err + out
    assert found(folder) == expected(case, tmp_path, extended=False)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/outcome.json")}

    file.write_text(yaml.safe_dump(BASE | case.content | (case.more or {}), sort_keys=False))
    code, out, err = cli(*run, *case.options)
    assert code == 0, err + out
    cells = expected(case, tmp_path, extended=True)
    assert found(folder) == cells
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/outcome.json")}.items()
    study = Store(folder).read_study()
    assert len(study.history) == 1
    assert sorted(cells.values()) == sorted((condition, seed) for _, condition, seed in study.places)

    code, out, err = cli("report", folder)
    assert code == 0, err + out
    assert case.differs in html.unescape((folder / "report.html").read_text())
    code, out, _ = cli(*run, *case.options)
    assert code == 0
    assert "0 to run" in out
    assert found(folder) == cells
