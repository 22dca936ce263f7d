"""Curves and probes of all cells of a study, read in columns: a frame for each cell would take most of the time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablations.config.limits import MOST_NAME
from ablations.config.nets import is_foreign
from ablations.store.leases import STEPS_FILE
from ablations.store.reading import exists, read_text, reason_of
from ablations.store.record import CellRecord

CURVES = ["place", "epoch", "split", "metric", "value"]
PROBES = ["place", "epoch", "layer", "probe", "value"]
STEPS = ["place", "step", "layer", "probe", "value"]

LAST_STEP = 2**53
"""Largest number of a step."""

CHUNK = 200
"""Number of cells whose text is in memory at a time."""

MOST_LINES, LONGEST_LINE = 2_000_000, 10_000
"""Lines of a file, and characters of a line; a thousand epochs of a hundred layers have a third of these lines."""

Tell = Callable[[int, str], None]
"""Function that receives the place of a record and what is wrong with its file."""


def read_curves(
    records: Sequence[CellRecord], metrics: Mapping[str, tuple[str, str]], problems: list[str]
) -> pd.DataFrame:
    """Read the curves of cells; a cell that ended in its first epoch has that epoch without values.

    Only complete epochs count, whose batches have the hashes in the outcome.

    Args:
        records: records of the cells.
        metrics: columns of metrics.csv, to split and metric.
        problems: list that receives a sentence for each file or part of one that cannot be read.

    Returns:
        One row per cell, metric and epoch: `place` of the record, `epoch`, `split`, `metric`, `value`.
    """
    untrained = [place for place, record in enumerate(records) if not record.outcome["epochs_run"]]
    parts = [_long(pd.DataFrame({"place": untrained, "epoch": 1, **dict.fromkeys(metrics, np.nan)}), metrics)]
    for tell, read, readable in _chunks(
        records, _trained(records), "metrics.csv", ["epoch", *metrics, "batches"], problems
    ):
        hashes = {place: records[place].outcome["epoch_hashes"] for place in readable}
        known = [hashes[place][row : row + 1] == [text] for place, row, text in _rows(read, "batches")]
        is_next = pd.to_numeric(read["epoch"], errors="coerce") == read["row"] + 1
        is_whole = (is_next & np.array(known, dtype=bool)).groupby(read["place"]).cummin()
        read = read[is_whole.to_numpy(bool)]
        _check_epochs(records, readable, read.groupby("place").size(), tell)
        values = {column: _numbers(read, column, tell) for column in metrics}
        parts.append(_long(pd.DataFrame({"place": read["place"], "epoch": read["row"] + 1, **values}), metrics))
    return _joined(parts, CURVES)


def read_probes(records: Sequence[CellRecord], problems: list[str]) -> pd.DataFrame:
    """Read the probes of cells, up to each cell's last complete epoch, which has as many rows as its first.

    Args:
        records: records of the cells.
        problems: as in `read_curves`.

    Returns:
        One row per cell, epoch, layer and probe, as the files have them: `place` of the record, `epoch`, `layer`,
        `probe`, `value`.
    """
    parts = []
    columns = ["epoch", "layer", "probe", "value"]
    for tell, read, readable in _chunks(records, _trained(records), "probes.csv", columns, problems):
        epochs = pd.to_numeric(read["epoch"], errors="coerce")
        whole = pd.DataFrame({"place": read["place"], "epoch": epochs})[(epochs % 1 == 0).to_numpy()]
        counts = whole.groupby(["place", "epoch"]).size()
        is_whole = (counts == counts.groupby("place").transform("max")).groupby("place").cummin()
        counts = counts[is_whole.to_numpy(bool)]
        foreign = {place for place in readable if is_foreign(records[place].config.net.model)}
        without = foreign - set(read["place"])  # no normalisers, no probes
        known = [place for place in readable if place not in without]
        _check_epochs(records, known, counts.groupby("place").size(), tell)
        kept = read[pd.MultiIndex.from_arrays([read["place"], epochs]).isin(counts.index)]
        kept = _without_long_names(kept, tell)
        value = _numbers(kept, "value", tell)
        parts.append(kept[["place", "layer", "probe"]].assign(epoch=epochs[kept.index].astype(int), value=value))
    return _joined(parts, PROBES)


def read_steps(records: Sequence[CellRecord], problems: list[str]) -> pd.DataFrame:
    """Read the probes of single steps of the cells that recorded them, also of one that ended in its first epoch.

    Args:
        records: records of the cells.
        problems: as in `read_curves`.

    Returns:
        One row per cell, step, layer and probe, as the files have them: `place` of the record, `step`, `layer` (empty
        for the loss), `probe`, `value`.
    """
    parts, columns = [], ["step", "layer", "probe", "value"]
    have = [place for place, record in enumerate(records) if exists(record.folder / STEPS_FILE)]
    for tell, read, _ in _chunks(records, have, STEPS_FILE, columns, problems):
        steps = pd.to_numeric(read["step"], errors="coerce")
        is_step = (steps % 1 == 0) & steps.between(1, LAST_STEP)
        kept = _left_out(read, ~is_step, "rows without a step", tell)
        kept = _without_long_names(kept.assign(step=steps[is_step].astype(np.int64)), tell)
        is_repeated = kept.duplicated(["place", "step", "layer", "probe"])
        kept = _left_out(kept, is_repeated, "repeated rows", tell)
        parts.append(kept.assign(value=_numbers(kept, "value", tell)))
    return _joined(parts, STEPS)


def layer_orders(probes: pd.DataFrame) -> dict[str, int]:
    """Return the place of each layer from 0, with the layers of every net in its own order.

    A layer that no earlier net has follows the one before it in its net. Nets without a common layer follow each other.

    Args:
        probes: rows of all cells, those of a cell in the order of its net: `cell`, `epoch`, `layer`.

    >>> nets = {"cell": ["a", "a", "b", "b", "b"], "epoch": 1}
    >>> layers = ["blocks.0", "class_blocks.0", "blocks.0", "blocks.1", "class_blocks.0"]
    >>> layer_orders(pd.DataFrame({**nets, "layer": layers}))
    {'blocks.0': 0, 'blocks.1': 1, 'class_blocks.0': 2}
    """
    first = probes[probes["epoch"] == probes["epoch"].min()].drop_duplicates(["cell", "layer"])
    nets = dict.fromkeys(first.groupby("cell", sort=False)["layer"].agg(tuple))
    after: dict[str | None, str | None] = {None: None}  # a linked list from None to None
    last = None
    for net in (*nets, tuple(probes["layer"].unique())):
        place = last if after.keys().isdisjoint(net) else None
        for layer in net:
            if layer not in after:
                after[place], after[layer] = layer, after[place]
            place = layer
            last = layer if after[layer] is None else last
    orders: dict[str, int] = {}
    layer = after[None]
    while layer is not None:
        orders[layer] = len(orders)
        layer = after[layer]
    return orders


def _trained(records: Sequence[CellRecord]) -> list[int]:
    """Return the places of the cells that finished an epoch."""
    return [place for place, record in enumerate(records) if record.outcome["epochs_run"]]


def _chunks(
    records: Sequence[CellRecord], places: Sequence[int], name: str, columns: list[str], problems: list[str]
) -> Iterator[tuple[Tell, pd.DataFrame, list[int]]]:
    """Read columns of a file of the cells at some places as text, some cells at a time, without incomplete lines.

    Yields:
        What receives a problem; `place` of the record, `row` in its file from 0, and the columns; the places of the
        cells whose files have these columns.
    """

    def tell(place: int, what: str) -> None:
        problems.append(f"{records[place].folder.name}: {name}{what}")

    for start in range(0, len(places), CHUNK):
        readable, rows = list[int](), list[list[Any]]()
        for place in places[start : start + CHUNK]:
            try:
                own = _columns(read_text(records[place].folder / name), columns)
            except (OSError, ValueError) as error:
                tell(place, f" cannot be read: {reason_of(error)}")
                continue
            except KeyError as error:
                tell(place, f" has no column {error.args[0]}")
                continue
            readable.append(place)
            rows += [[place, row, *texts] for row, texts in enumerate(own)]
        yield tell, pd.DataFrame(rows, columns=["place", "row", *columns]), readable


def _columns(text: str, columns: list[str]) -> Iterator[list[str]]:
    """Return the texts of columns of a CSV file without quotes, line by line, except incomplete lines.

    Raises:
        KeyError: the file has no such column.
        ValueError: it has too many lines.
    """
    if text.count("\n") > MOST_LINES:
        raise ValueError(f"it has more than {MOST_LINES:,} lines")
    head, *lines = text[: text.rfind("\n") + 1].splitlines() or [""]
    names = head.split(",")
    for column in columns:
        if column not in names:
            raise KeyError(column)
    where = [names.index(column) for column in columns]
    split = (line.split(",") for line in lines if len(line) < LONGEST_LINE)
    return ([sys.intern(texts[i]) for i in where] for texts in split if len(texts) == len(names))


def _rows(read: pd.DataFrame, column: str) -> Iterator[tuple[int, int, str]]:
    return zip(read["place"].tolist(), read["row"].tolist(), read[column].tolist(), strict=True)


def _without_long_names(read: pd.DataFrame, tell: Tell) -> pd.DataFrame:
    """Leave out, and report, the rows whose layer or probe has too long a name."""
    is_long = pd.Series(False, index=read.index)
    for column in ("layer", "probe"):
        is_long |= read[column].isin([name for name in read[column].unique() if len(name) > MOST_NAME])
    return _left_out(read, is_long, f"rows with names of more than {MOST_NAME} characters", tell)


def _left_out(read: pd.DataFrame, is_bad: pd.Series[bool], what: str, tell: Tell) -> pd.DataFrame:
    """Leave out rows, and report how many each cell has."""
    for place, count in read[is_bad].groupby("place").size().items():
        tell(int(str(place)), f": {what} left out: {count}")
    return read[~is_bad]


def _check_epochs(records: Sequence[CellRecord], places: Sequence[int], counts: pd.Series[int], tell: Tell) -> None:
    """Report the cells whose file has fewer complete epochs than the outcome says."""
    for place in places:
        have, want = int(counts.get(place, 0)), records[place].outcome["epochs_run"]
        if have != want:
            tell(place, f": complete epochs: {have} of {want}")


def _numbers(read: pd.DataFrame, column: str, tell: Tell) -> pd.Series[float]:
    """Convert a column of text to numbers; report values that are neither numbers nor empty."""
    values = pd.to_numeric(read[column], errors="coerce").astype(np.float64)
    lost = read[values.isna()]
    lost = lost[~lost[column].str.lower().isin(["nan", ""])]
    for place, count in lost.groupby("place").size().items():
        tell(int(str(place)), f": values of {column} that are not numbers: {count}")
    return values


def _long(wide: pd.DataFrame, metrics: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Return a row per cell, metric and epoch."""
    parts = [
        pd.DataFrame({"place": wide["place"], "epoch": wide["epoch"], "value": wide[column]}).assign(
            split=split, metric=metric
        )
        for column, (split, metric) in metrics.items()
    ]
    return pd.concat(parts, ignore_index=True).sort_values("place", kind="stable")


def _joined(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    some = [part[columns] for part in parts if len(part)]
    return pd.concat(some, ignore_index=True) if some else pd.DataFrame(columns=columns)
