"""Text from elsewhere reaches no terminal, page or table as anything but text."""

from __future__ import annotations

import csv
import json
import logging
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.text import Text
from studies import make_study

import ablations
from ablations.api import make_report
from ablations.config.escape import figure_text, visible, visible_lines
from ablations.report import drawing, kinds, write
from ablations.report.gallery import all_figures
from ablations.report.text import markdown_text
from ablations.store.tidy_csv import guard, unguarded, write_csv

PACKAGE = Path(ablations.__file__).parent
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


@pytest.mark.parametrize("sign", "\u00ad\u034f\u115f\u180e\u200b\u2060\u2064\u3164\ufeff\U000e0041")
def test_names_that_look_alike_are_shown_as_different(sign):
    shown = f"xnorm{sign.encode('unicode_escape').decode()}"
    assert (visible(f"xnorm{sign}"), visible_lines(f"xnorm{sign}")) == (shown, shown)


def test_warnings_go_to_the_handler_that_escapes_them():
    """The functions of `logging` itself install another handler; only a worker, which has its own, may call them."""
    found = [path for path in PACKAGE.rglob("*.py") if re.search(r"\blogging\.(warning|error)\(", path.read_text())]
    assert found == [PACKAGE / "engine" / "cell.py"]


@pytest.fixture(scope="module", autouse=True)
def few_figures():
    """Draw few figures, in this process."""

    def first_of_each(results):
        return list({spec.name: spec for spec in all_figures(results)}.values())[:4]

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
    return make_report([study], full=True)


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


def test_a_table_in_latex_is_text_and_comments(study, report):
    files = sorted((study / "tables").glob("*.tex"))
    assert len(files) > 5
    for path in files:
        lines = path.read_text().splitlines()
        assert not RAW.search(path.read_text().replace("\n", ""))
        before, after = lines.index(r"\end{table}"), len(lines)
        assert all(line.startswith("% ") for line in lines[before + 1 : after])
        for line in lines[lines.index(r"\toprule") : lines.index(r"\bottomrule")]:
            text = re.sub(
                r"\\(textbackslash|textasciitilde|textasciicircum|textbar)\{\}|\\[&%$#_{}]|\$[-<>]\$", "", line
            )
            assert not re.search(r"[%#$_^~|]|\\(input|x1b)", text), line
            assert not line.startswith(("[", "*"))
    assert any(r"\x1b" in line for path in files for line in path.read_text().splitlines() if line[:1] == "%")


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("[a](b)", r"\[a\](b)"),
        ("[1, 2](b)", r"\[1, 2\](b)"),
        ("x <img src=y> 0 < 1 <0.001", r"x \<img src=y> 0 < 1 <0.001"),
        ("`a` a|b", r"\`a\` a\|b"),
        (r"a\|b", r"a\\\|b"),
        ("*a* _a_ a_b ~~a~~ &lt; & # x", r"\*a\* \_a\_ a_b \~~a\~~ \&lt; & # x"),
        ("# x\n- y", r"\# x\\n- y"),
        ("[-0.25, +1.00]", "[-0.25, +1.00]"),
    ],
)
def test_signs_of_markdown_are_escaped(text, escaped):
    assert markdown_text(text) == escaped


def test_a_table_in_markdown_has_as_many_cells_as_columns(study, report):
    for path in (study / "tables").glob("*.md"):
        text = path.read_text()
        assert not RAW.search(text.replace("\n", ""))
        assert not re.search(r"(?<!\\)<[a-z]", text)
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}) == 1, path
    lines = (study / "checklist.md").read_text().splitlines()
    assert all(line.startswith("- **") for line in lines)
    assert "<b>" not in (study / "checklist.md").read_text().replace(r"\<b>", "")


def test_the_page_has_no_markup_of_others(study, report):
    page = (study / "report.html").read_text()
    assert not RAW.search(page.replace("\n", "").replace("\t", ""))
    assert "<b>i</b>" not in page
    assert "&lt;b&gt;i&lt;/b&gt;" in page


def test_no_cell_of_a_csv_is_a_formula_and_numbers_stay(study, report):
    for path in study.glob("**/*.csv"):
        with path.open(newline="") as file:
            texts = [cell for row in csv.reader(file) for cell in row]
        risky = [text for text in texts if text[:1] in tuple("=+-@\t\r") and not re.fullmatch(r"[-+][\d.e-]+.*", text)]
        assert not risky, path


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", *map(chr, (0xFF1D, 0xFF0B, 0xFF0D, 0xFF20))])
def test_a_sign_that_starts_a_formula_is_guarded(sign):
    assert guard(f"{sign}1+1") == f"'{sign}1+1"


TEXTS = st.text("=+-@\t\r'0.5eax \n,\"", max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.floats(allow_nan=False), st.integers(-99, 99)), min_size=1, max_size=4))
def test_a_guarded_csv_is_read_back_as_it_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "guarded.csv"
    frame = pd.DataFrame(rows, columns=["text", "real", "whole"])
    write_csv(frame, path)
    read = pd.read_csv(path, keep_default_na=False, dtype={"text": str})
    assert unguarded(read)["text"].tolist() == frame["text"].tolist()
    assert read["real"].tolist() == pytest.approx(frame["real"].tolist(), rel=1e-14)
    assert read["whole"].tolist() == frame["whole"].tolist()
    assert not [text for text in read["text"] if text[:1] in tuple("=@\t\r") and text]


def test_dollars_in_a_figure_are_no_formula(report):
    axes = report.results.plot.test_accuracy(condition=report.results.conditions[0])
    drawn = [text for text in axes.figure.findobj(Text) if "$x" in text.get_text().replace("\\", "")]
    assert not any(is_math_text(text.get_text()) for text in drawn)
    names = pd.DataFrame({"arm": ["a $x$ b"], "path": ["/a$x$"], "n": [1]})
    plain = kinds._with_plain_texts(names)
    assert plain["arm"].tolist() == [r"a \$x\$ b"]
    assert plain["path"].tolist() == ["/a$x$"]
    figure = Figure()
    figure.text(0, 0, figure_text("broken $x_{$ and $y$"))
    figure.canvas.draw()
