"""Text from elsewhere reaches no terminal, page or table as anything but text."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from studies import make_study

import ablations
from ablations.config.escape import visible
from ablations.report import drawing, write
from ablations.report.gallery import all_figures

CONTROLS = "\x1b]0;t\x07\x9b31m\u202e\u2066\x7f"
SIGNS = "& % $ # _ { } ~ ^ \\ $x_$ [red]a[/red] :bug: | ` <b>i</b> *s* \"q\" 'q' =1+1"
EVIL = f"{SIGNS}{CONTROLS}\n@x\r\\input{{y}}"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def hostile(out: Path) -> Path:
    """Write a study whose names, messages, versions and logs are hostile."""
    claims = [{"kind": "fails_to_train", "arm": "l2", "source": EVIL}]
    folder = make_study(
        out,
        name="made_up",
        norms=("xnorm", "l2"),
        seeds=3,
        data=[f"imagefolder:{SIGNS}{CONTROLS}"],
        classes=[f"{SIGNS}{CONTROLS}+b", "-c+d$e$"],
        question=EVIL,
        claims=claims,
        stories={("l2", 0): "error"},
        log=EVIL,
    )
    for path in folder.glob("cells/*/outcome.json"):
        record = json.loads(path.read_text())
        record["detail"] = EVIL * (record["outcome"] == "failed")
        record["traceback"] = [EVIL, "second line"] * (record["outcome"] == "failed")
        record["device"] = f"cuda: {EVIL} {path.parent.name.partition('-')[0]}"
        record["versions"] |= {"torch": f"2.0{EVIL}"}
        record["machine"]["processor"] = EVIL
        path.write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module", autouse=True)
def few_figures():
    """Draw one figure of each kind, in this process."""

    def first_of_each(results):
        return {spec.name: spec for spec in all_figures(results)}.values()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "MOST_PROCESSES", 1)
        patch.setattr(write, "all_figures", lambda _: [])
        yield lambda: patch.setattr(write, "all_figures", first_of_each)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return hostile(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def report(study, few_figures):
    few_figures()
    return ablations.api.make_report([study], full=True)


@pytest.mark.parametrize("command", ["report", "status", "power", "show", "diff", "list", "clean", "bench", "run"])
def test_no_control_reaches_a_terminal(cli, study, command):
    one, other = (path.name for path in sorted(study.glob("cells/[!.]*"))[:2])
    arguments = {
        "show": (one, "--out", study.parent),
        "diff": (one, other, "--out", study.parent),
        "list": ("studies", "--out", study.parent),
        "bench": ("cost", f"{study}{EVIL}"),
        "run": ("--study", EVIL),
    }
    _, out, err = cli(command, *arguments.get(command, (study,)))
    assert out + err
    assert not RAW.search(out + err)


def test_controls_are_shown_as_escapes_and_markup_is_text(cli, study):
    failed = next(path.name for path in study.glob("cells/l2-s0-*"))
    out = cli("show", failed, "--out", study.parent)[1]
    assert r"\x1b]0;t\x07\x9b31m\u202e\u2066\x7f\n@x\r" in out
    assert "[red]a[/red] :bug:" in out
    assert re.search(r"\n +second line *\n", out)
    assert "[red]a[/red] :bug:" in cli("status", study)[1]


def test_errors_and_warnings_are_escaped(cli, tmp_path, monkeypatch):
    code, _, err = cli("report", tmp_path / "a\x1b[31m\nb\u202e")
    assert code == 2
    assert err.count("\n") == 1
    assert r"a\x1b[31m b\u202e" in err
    cli("list", "data")  # as it sets up its messages
    record = logging.LogRecord("a", logging.WARNING, "f", 1, "%s", ("x\x1b[2Jy",), None)
    assert logging.lastResort.format(record) == r"x\x1b[2Jy"


def test_json_has_no_raw_control(cli, study):
    out = cli("report", study, "--json")[1]
    assert not RAW.search(out.replace("\x7f", ""))
    assert json.loads(out)["study"] == "made_up"


def test_results_in_a_notebook_are_escaped(report):
    html = report.results._repr_html_()
    assert not RAW.search(html)
    assert "<b>i</b>" not in html
    assert not RAW.search(repr(report.results))


@pytest.mark.parametrize("sign", ["\x00", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u202e", "\u2069", "\ud800", "\n"])
def test_every_control_becomes_visible(sign):
    assert visible(f"a{sign}b").isprintable()
    assert len(visible(f"a{sign}b")) > 3
