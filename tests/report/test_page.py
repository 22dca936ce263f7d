"""The report's page in a real browser: it asks for nothing, runs nothing but its own script, and reads well."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from studies import make_study

from ablations.api import make_report

EVIL = "<script>window.ran = 1; alert('it\"s')</script> & <img src=x onerror='window.ran = 1'>"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = {"desk": 1400, "phone": 400}

pytestmark = [pytest.mark.process, pytest.mark.rendered]


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        assert not os.environ.get("CI"), f"none of {', '.join(BROWSERS)} is installed"
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A study with a claim, contrasts, a run of each bad end, and signs in it that are no text in HTML."""
    folder = make_study(
        tmp_path_factory.mktemp("out"),
        norms=("xnorm", "l2", "single_l2", "xnorm_fixed"),
        seeds=6,
        stories={("l2", 0): "nan", ("single_l2", 1): "oom", ("xnorm_fixed", 2): "stuck"},
        missing=[("xnorm_fixed", 5)],
        claims=[{"kind": "fails_to_train", "arm": "l2", "source": EVIL}],
        question=f"Which one trains? {EVIL}",
        log=EVIL,
    )
    (next((folder / "cells").glob("l2-s3-*")) / "correct.npy").unlink()
    make_report([folder], full=True)
    return folder / "report.html"


@pytest.fixture(params=WIDTHS.values(), ids=WIDTHS)
def page(browser: Browser, report: Path, request):
    """The page as it stands, without a network; what it asks for and says is checked at the end."""
    context = browser.new_context(viewport={"width": request.param, "height": 900}, offline=True)
    context.set_default_timeout(5000)
    opened = context.new_page()
    asked, said = [], []
    opened.on("request", lambda one: asked.append(one.url))
    opened.on("console", lambda one: said.append(one.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
    opened.goto(report.as_uri())
    yield opened
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert said == []
    context.close()


def column(page: Page, name: str) -> list[str]:
    """Return the main table's column, from the top."""
    table = page.locator("section:has(> #main) table.sortable").first
    place = [head.strip() for head in table.locator("th").all_inner_texts()].index(name)
    return [cell.strip() for cell in table.locator(f"tbody tr td:nth-child({place + 1})").all_inner_texts()]


def sort(page: Page, name: str) -> None:
    page.locator("section:has(> #main) table.sortable").first.get_by_role("button", name=name, exact=True).click()


def test_the_table_sorts_by_number_and_by_name_both_ways(page):
    registered = column(page, "norm")
    assert registered == ["xnorm", "l2", "single_l2", "xnorm_fixed"]
    means = sorted(map(float, column(page, "test %")))
    sort(page, "test %")
    assert list(map(float, column(page, "test %"))) == means
    head = page.locator("th[aria-sort]").first
    assert head.get_attribute("aria-sort") == "ascending"
    sort(page, "test %")
    assert list(map(float, column(page, "test %"))) == means[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    sort(page, "norm")
    assert column(page, "norm") == sorted(registered)
    sort(page, "- xnorm")
    *differences, last = column(page, "- xnorm")
    assert (differences, last) == (sorted(differences, key=float), "ref")  # what is no number comes last


def test_every_figure_is_there(page, report):
    sizes = page.eval_on_selector_all("figure img", "all => all.map(one => [one.complete, one.naturalWidth, one.alt])")
    assert len(sizes) == len(list((report.parent / "figures").glob("*.png"))) > 10
    assert all(complete and width > 800 and alt for complete, width, alt in sizes)


def test_signs_that_mean_something_in_html_stay_text(page):
    assert page.evaluate("window.ran") is None
    assert page.locator("script").count() == 1
    assert EVIL in page.locator(".question").inner_text()
    assert EVIL in page.locator(".claims").inner_text()
    assert EVIL in page.locator("#failed ~ details pre").first.text_content()


def test_nothing_runs_out_of_the_page(page):
    """What is wide scrolls in its own box; the page itself does not."""
    for details in page.locator("details").all():
        details.evaluate("one => one.open = true")
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = """all => all.filter(one => !one.closest('.wide, pre, script, style') &&
        one.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(one => one.outerHTML)"""
    assert page.eval_on_selector_all("body *", outside) == []
    smallest = "all => Math.min(...all.map(one => parseFloat(getComputedStyle(one).fontSize)))"
    assert page.eval_on_selector_all("p, td, li, dd, pre, figcaption", smallest) >= 12
    boxes = [figure.bounding_box() for figure in page.locator("figure").all()[:2]]
    assert (boxes[0]["y"] == boxes[1]["y"]) == (width > 1000)  # side by side where there is room


def test_what_is_missing_and_what_failed_is_said_first(page):
    warning = page.locator(".warning").inner_text()
    assert "No readable result of xnorm_fixed (seeds 5)" in warning
    assert "correct.npy" in warning
    ended = page.locator("#failed ~ details summary").all_inner_texts()
    assert [text.split(":")[0] for text in ended] == ["l2, seed 0", "single_l2, seed 1", "xnorm_fixed, seed 2"]
    assert page.locator("nav a").evaluate_all("all => all.every(one => document.querySelector(one.hash))")
