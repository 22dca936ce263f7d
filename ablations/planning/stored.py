"""What a study's folder holds before a plan: records, and the study if its question is fixed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablations.config import CellConfig, Study, UsageError
from ablations.config.claim import merge_claims
from ablations.config.escape import visible
from ablations.config.grid import GridRequest, exclusion_text
from ablations.config.grid_options import overridden
from ablations.config.request import Request
from ablations.config.settings import claims_changed
from ablations.config.study import DATA_FIELDS
from ablations.config.values import value_name
from ablations.planning.asked import complete
from ablations.store import CellRecord, Store
from ablations.store.provenance import import_plugin, plugin_lines
from ablations.store.reading import read_lines

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """The contents of a study's folder.

    Args:
        store: folder of the study.
        study_text: text of study.yaml; empty if there is none.
        records: records of ended cells, by id.
        is_begun: whether cells have been run or are about to be, so that the question of the study is fixed.
        study: study with a fixed question; None if there is none yet.
    """

    store: Store
    study_text: str
    records: dict[str, CellRecord]
    is_begun: bool
    study: Study | None

    @property
    def has_orphaned_report(self) -> bool:
        """Whether there is a table of results, but no record of a cell."""
        tables = [self.store.folder / name for name in ("results.csv", "tables/main.csv")]
        return not self.records and any(len(read_lines(table)) > 1 for table in tables)

    @property
    def num_results(self) -> int:
        """Number of cells with a result."""
        return sum(record.has_result for record in self.records.values())

    def values_taken(self, request: Request) -> dict[str, list[Any]]:
        """Return the axes of the stored study that a request leaves out, where they differ from the request's defaults.

        There are none if the request compares another field.
        Data sets must be given again, since a study does not hold the location of a folder.
        """
        if self.study is None or self.study.compare != request.compare:
            return {}
        axes, asked = self.study.axes, complete(request)
        names_all = request.grids or (request.from_file and self.study.grids)  # grids grow by what is asked only
        fields = ["seed"] if names_all else list(axes)
        unnamed = {name: axes[name] for name in fields if name not in request.named and name not in DATA_FIELDS}
        return {name: values for name, values in unnamed.items() if values != asked.get(name)}

    def has_curves_of(self, cells: Sequence[CellConfig]) -> bool:
        """Tell whether an interrupted attempt of one of these cells has left curves, which somebody may have seen."""
        ids = {cell.id for cell in cells}
        return any(path.parent.stem in ids for path in self.store.leases.partials.glob("*.*/metrics.csv"))

    def with_claims(self, study: Study, cells: Sequence[CellConfig]) -> Study:
        """Return a study whose question is not fixed yet, with the claims that its interrupted cells were run under.

        Those who saw their curves may not drop a claim, and a claim that came later is post hoc.

        Args:
            study: study of the plan.
            cells: cells of the plan; curves of other cells do not count.

        Raises:
            UsageError: too many claims.
        """
        if not self.has_curves_of(cells):
            return study
        try:
            old = self.store.read_study()
        except UsageError:  # whatever it claimed, this comes later
            return study.model_copy(update={"claims": merge_claims((), study.claims)})
        claims = merge_claims(old.claims, study.claims, changed=claims_changed(old, study))
        merged = study.model_copy(update={"claims": claims})
        merged.check_size()
        return merged

    def with_grids(self, request: Request) -> Request:
        """Return a request with the grids and the values per arm of the stored study, unless it has its own or a file.

        Values that the request names replace those of every grid.

        Raises:
            UsageError: the grids differ in their data sets, whose places a study does not hold.
        """
        study = self.study
        if study is None or study.compare != request.compare or request.from_file:
            return request
        arms = list(map(value_name, request.asked.get(study.compare, study.arms)))
        per_arm = request.per_arm or {
            arm: {field: value for field, value in own.items() if field not in request.asked}
            for arm, own in study.per_arm.items()
            if arm in arms
        }
        request = replace(request, per_arm={arm: own for arm, own in per_arm.items() if own})
        if request.grids or not study.grids:
            return request
        if varied := [field for field in DATA_FIELDS if len(study.axes.get(field, [])) > 1]:
            raise UsageError(f"study '{study.name}' has grids that differ in {varied[0]}: give its experiment file")
        grids = [
            GridRequest(
                asked={field: values for field, values in grid.axes.items() if field != "data"},
                zipped=grid.zipped,
                exclude=grid.exclude,
            )
            for grid in study.grids
        ]
        found, notes = overridden(grids, request.asked, short={})
        taken = f"taken from the stored study: {', '.join(_layout(study))}"
        return replace(request, grids=tuple(found), notes=(*request.notes, taken, *notes))

    def with_search(self, request: Request) -> Request:
        """Return a request with the search and the points of the stored study, unless it has a search of its own.

        Raises:
            UsageError: the study has a search, and the request is no product.
        """
        if self.study is None or request.search is not None:
            return request
        if self.study.search is not None and (request.grids or request.per_arm):
            raise UsageError(
                f"study '{self.study.name}' has the winners of a tuning: zip, exclude, grids and per_arm do not apply "
                "to it; choose another name with --study"
            )
        return replace(request, search=self.study.search, points=self.study.points)


def _layout(study: Study) -> list[str]:
    """Describe what makes a study no product, in short."""
    if len(study.grids) > 1:
        return [f"its {len(study.grids)} grids"]
    zipped = [f"zip {','.join(group)}" for grid in study.grids for group in grid.zipped]
    return [*zipped, *(f"exclude {exclusion_text(entry)}" for grid in study.grids for entry in grid.exclude)]


def read_stored(store: Store) -> Stored:
    """Read a study's folder, repair what a killed runner left behind, and import the study's plug-ins, with a warning.

    Raises:
        UsageError: a record or study.yaml cannot be read, or a plug-in cannot be imported.
    """
    study_text = store.study_text
    if store.exists:
        store.repair()
    records = store.records()
    is_begun = bool(records) or any(store.leases.running()) or (store.exists and store.leases.is_opening)
    study = store.read_study() if is_begun else None
    for line in () if study is None else plugin_lines(study):
        LOG.warning("%s", visible(line))
    for plugin in () if study is None else study.plugins:
        import_plugin(plugin)
    return Stored(store, study_text, records, is_begun, study)
