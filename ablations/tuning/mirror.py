"""Optuna's studies of a tuning, one for each arm, built from the cells and rebuilt if they disagree with them.

An Optuna trial is a cell, identified by its id. All drawn points are enqueued, and ended trials are reported in the
order of the points, so that Optuna's trial k is always point k.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from ablations.config import CellConfig, Study, UsageError
from ablations.config.privacy import without_password
from ablations.config.task import metric_of
from ablations.engine.watcher import Watcher
from ablations.store import Store
from ablations.store.reading import check_inside
from ablations.tuning.propose import DIVERGED, Ended, distributions

JOURNAL = "optuna_journal.log"
"""Name of Optuna's journal file, in the folder of the trials."""

DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""Module by which SQLAlchemy opens a database, to the package that contains it, if their names differ."""

STATES = {"ok": TrialState.COMPLETE, "diverged": TrialState.COMPLETE, "failed": TrialState.FAIL}
"""Outcome of a cell to the state of Optuna's trial; a diverged trial is a result."""


class OptunaStudies:
    """Optuna's studies of a tuning.

    Args:
        study: study of the tuning.
        cells: trials to run; cells with a record are trials too.
        store: folder of the trials.
        url: URL of Optuna's database; None: a journal file in the folder.

    Raises:
        UsageError: the database cannot be opened, or one of the names belongs to a study of other trials.
    """

    def __init__(self, study: Study, cells: list[CellConfig], *, store: Store, url: str | None) -> None:
        assert study.search is not None, "the study is no tuning"
        self._study, self._search = study, study.search
        self._journal = store.folder / JOURNAL
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        records = {id_: record for id_, record in store.records().items() if study.has(record.config)}
        known = {id_: record.config for id_, record in records.items()} | {cell.id: cell for cell in cells}
        self._cells: dict[str, list[CellConfig]] = {}
        for cell in sorted(known.values(), key=lambda cell: cell.seed):
            self._cells.setdefault(study.arm_of(cell), []).append(cell)
        self._outcomes = {id_: record.outcome for id_, record in records.items()}
        self._notes: list[str] = []
        self.url = url or ""
        self._storage: BaseStorage | None = None  # a journal is opened when its folder is there
        if url is not None:
            self._storage = _open_database(url)
            self._check_names(url)

    def telling(self, watcher: Watcher) -> Telling:
        """Synchronise every study with the cells, and return a watcher that also reports to Optuna.

        Args:
            watcher: watcher that receives all events.
        """
        for line in self.sync():
            watcher.note(line)
        return Telling(watcher, self)

    def sync(self) -> list[str]:
        """Synchronise every arm's study with the cells; one that disagrees with them is rebuilt.

        Returns:
            A sentence for each rebuilt study.
        """
        with self._locked():
            if self._storage is None:
                self._storage = self._open_journal()
            for arm in self._cells:
                self._sync(arm)
        notes, self._notes = self._notes, []
        return notes

    def tell(self, cell: CellConfig, outcome: Mapping[str, Any]) -> None:
        """Report an ended trial."""
        self._outcomes[cell.id] = dict(outcome)
        with self._locked():
            self._sync(self._study.arm_of(cell))

    def name_of(self, arm: str) -> str:
        """Return the name of an arm's study."""
        return f"{self._study.name}: {arm}"

    def _open_journal(self) -> BaseStorage:
        """Open the journal file; replace one that is truncated or damaged.

        Raises:
            UsageError: it leads out of the folder of the trials.
        """
        check_inside(self._journal, self._journal.parent)
        content = self._journal.read_bytes() if self._journal.exists() else b""
        if not content or content.endswith(b"\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # Optuna's errors for damaged lines
                return JournalStorage(JournalFileBackend(str(self._journal)))
        self._journal.unlink()
        self._notes.append(f"{self._journal} was damaged; it is rebuilt from the cells")
        return JournalStorage(JournalFileBackend(str(self._journal)))

    def _check_names(self, url: str) -> None:
        assert self._storage is not None, "a database is opened at once"
        known = set(optuna.get_all_study_names(self._storage))
        for arm, cells in self._cells.items():
            if self.name_of(arm) in known:
                trials = self._load(arm).get_trials(deepcopy=False)
                ours = {cell.id for cell in cells}
                if trials and not any(trial.user_attrs.get("cell") in ours for trial in trials):
                    raise UsageError(
                        f"--storage {without_password(url, url)} has a study '{self.name_of(arm)}' of other trials: "
                        "choose another name with --study"
                    )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude other runners of the same tuning; the lock ends with its process."""
        folder = os.open(self._journal.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # without locks a study that disagrees is rebuilt next time
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _load(self, arm: str) -> optuna.Study:
        return optuna.create_study(
            storage=self._storage, study_name=self.name_of(arm), direction="maximize", load_if_exists=True
        )

    def _sync(self, arm: str) -> None:
        study = self._load(arm)
        cells = self._cells[arm]
        trials = study.get_trials(deepcopy=False)
        if not all(map(self._agrees, trials, cells[: len(trials)])) or len(trials) > len(cells):
            self._notes.append(f"Optuna's study '{self.name_of(arm)}' disagreed with the cells; it is rebuilt")
            assert self._storage is not None, "the study is in it"
            optuna.delete_study(study_name=self.name_of(arm), storage=self._storage)
            study, trials = self._load(arm), []
        if not trials:
            study.set_user_attr("searched", str(self._search))
            measure = metric_of(cells[0]).name
            study.set_user_attr("value", f"validation {measure} of the last epoch, %; chance where it diverged before")
        for cell in cells[len(trials) :]:
            study.enqueue_trial(self._values(cell), user_attrs={"cell": cell.id, "seed": cell.seed})
        num_told = sum(trial.state != TrialState.WAITING for trial in trials)
        for cell in cells[num_told:]:
            if cell.id not in self._outcomes:
                break
            self._tell(study, cell)

    def _tell(self, study: optuna.Study, cell: CellConfig) -> None:
        """Report the outcome of a cell, the next waiting trial."""
        outcome = self._outcomes[cell.id]
        trial = study.ask(distributions(self._search))
        for key in ("outcome", "kind", "val_loss", "seconds"):
            trial.set_user_attr(key, outcome.get(key))
        ended = Ended.of(outcome, trial.params, metric=metric_of(cell))
        if ended.outcome == "failed":
            study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_constraint(DIVERGED, float(ended.outcome == "diverged"))
        study.tell(trial, ended.score_pct)

    def _agrees(self, trial: FrozenTrial, cell: CellConfig) -> bool:
        """Tell whether a trial agrees with its cell."""
        outcome = self._outcomes.get(cell.id)
        if trial.user_attrs.get("cell") != cell.id:
            return False
        if trial.state == TrialState.WAITING:
            return True
        if outcome is None or trial.state != STATES[outcome["outcome"]] or trial.params != self._values(cell):
            return False
        ended = Ended.of(outcome, trial.params, metric=metric_of(cell))
        return trial.user_attrs.get("outcome") == ended.outcome and trial.value == ended.score_pct

    def _values(self, cell: CellConfig) -> dict[str, Any]:
        return {field: cell[field] for field in self._search.fields}


class Telling:
    """Watcher that also reports to Optuna, whose errors stop no trial.

    Args:
        watcher: watcher that receives all events.
        studies: studies to report to.
    """

    def __init__(self, watcher: Watcher, studies: OptunaStudies) -> None:
        self._watcher, self._studies = watcher, studies
        self._is_noted = False

    def done(self, cell: CellConfig, outcome: Mapping[str, Any], *, ours: bool, remark: str) -> None:
        """Report an ended trial to both."""
        self._watcher.done(cell, outcome, ours=ours, remark=remark)
        try:
            self._studies.tell(cell, outcome)
        except Exception as error:  # whatever a database's driver raises: the cells are the truth
            if not self._is_noted:
                line = f"Optuna's storage cannot be written: {_line(error)}; trials continue, the next run completes it"
                self._watcher.note(without_password(line, self._studies.url))
            self._is_noted = True

    def note(self, line: str) -> None:
        """Forward a note."""
        self._watcher.note(line)

    def tick(self) -> None:
        """Forward a tick."""
        self._watcher.tick()


def _open_database(url: str) -> BaseStorage:
    try:
        return get_storage(url)
    except ImportError as error:
        module = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if module is None:
            raise _cannot_be_opened(url, error) from None
        package = DRIVERS.get(module, module)
        shown = without_password(url, url)
        raise UsageError(f"--storage {shown} needs {module}, which is not installed: pip install '{package}'") from None
    except Exception as error:  # whatever the database's driver raises
        raise _cannot_be_opened(url, error) from None


def _cannot_be_opened(url: str, error: Exception) -> UsageError:
    return UsageError(without_password(f"--storage {url} cannot be opened: {_line(error)}", url))


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
