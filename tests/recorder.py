"""The outcome of every test as JSON, written after each: a run that is killed leaves those that ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablations.store.files import write_json


class Recorder:
    """Plug-in of pytest that writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.tests.setdefault(report.nodeid, {"name": report.nodeid, "outcome": "passed", "seconds": 0.0})
        test["seconds"] = round(test["seconds"] + report.duration, 2)
        test.setdefault("detail", "")
        if report.outcome != "passed":
            test |= {"outcome": report.outcome, "detail": reason(report)}
        if report.when == "teardown":
            self.write()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.tests[report.nodeid] = {
                "name": report.nodeid,
                "outcome": "failed",
                "seconds": 0.0,
                "detail": reason(report),
            }

    def pytest_sessionfinish(self) -> None:
        self.write()

    def write(self) -> None:
        write_json(self.file, {"tests": list(self.tests.values())})


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return why a test was skipped or failed, in one line."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return (str(report.longrepr) if crash is None else crash.message).strip().partition("\n")[0]
