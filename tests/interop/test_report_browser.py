"""The report in a headless Chromium: nothing overflows, complains or is asked for, and everybody can read it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chargepki.pki.reporting import report_html
from testkit.browser import AXE, Browser, Page, need_browser, open_browser
from testkit.effort import CAMPAIGN
from testkit.estates import fill_estate
from testkit.report_world import check_report, fill_rows, make_report

pytestmark = pytest.mark.foreign

WIDTHS = (360, 768, 1280)
ALL_RULES = '["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]'
CONTRAST = '["color-contrast"]'
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
PAPER = "getComputedStyle(document.body).backgroundColor"
MOST_BYTES = 128 * 1024


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need_browser()
    with open_browser() as started:
        yield started


def violations(page: Page, rules: str = ALL_RULES) -> list[list[str]]:
    """Return what axe-core finds, each with its elements."""
    names = "found.violations.map(each => [each.id, ...each.nodes.map(node => node.html.slice(0, 200))])"
    found: list[list[str]] = page.evaluate(
        f"axe.run(document, {{runOnly: {rules}, resultTypes: ['violations']}}).then(found => {names})"
    )
    return found


def write_page(folder: Path, count: int) -> Path:
    """Write the report on an estate with *count* certificates more, and return its file."""
    with closing(fill_estate(f"sqlite:///{folder / 'i.db'}", folder)) as inventory:
        fill_rows(folder / "i.db", count)
        text = report_html(make_report(inventory, check=check_report()))
    assert len(text.encode()) < MOST_BYTES
    file = folder / "report.html"
    file.write_text(text, encoding="utf-8")
    return file


def look_at(browser: Browser, file: Path, *, judged: bool = True) -> None:
    """Load a report as readers do, in each width, in both colours and on paper.

    Args:
        judged: have axe-core judge it too, which takes seconds.
    """
    page = browser.page()
    page.show(width=WIDTHS[0])
    page.load(file.as_uri())
    papers = set()
    for dark in (False, True):
        for width in WIDTHS:
            page.show(width=width, dark=dark)
            assert page.evaluate(TOO_WIDE) <= 0, f"{width} pixels are too few"
        papers.add(page.evaluate(PAPER))
    assert len(papers) == 2, "light and dark"
    for closed in page.evaluate("[...document.querySelectorAll('details')].map(each => { each.open = true })"):
        assert closed is None
    page.show(width=WIDTHS[0])
    assert page.evaluate(TOO_WIDE) <= 0, "what is folded up fits too"
    # A page on paper is light, whatever the screen was, and shows all of the graph.
    page.show(width=690, dark=True, media="print")
    assert page.evaluate(PAPER) == "rgb(255, 255, 255)"
    assert page.evaluate(TOO_WIDE) <= 0
    assert page.requests == [file.as_uri()], "it asks for nothing but itself"
    assert page.complaints == []
    assert page.evaluate("document.querySelectorAll('script, img').length") == 0
    assert page.evaluate("document.querySelectorAll('svg[role=img]').length") == 2
    if not judged:
        return
    assert page.pdf().startswith(b"%PDF")
    # axe-core is no part of the page, whose policy would not let it in: it is put past the policy.
    page.show(width=1280)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert violations(page) == []
    page.show(width=1280, dark=True)
    assert violations(page, CONTRAST) == [], "nothing but colours differs"


def test_judge_finds_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<html><head><meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\"></head>"
        "<body><img src='/x.png'><p style='width:3000px'>wide</p><script>1</script></body></html>"
    )
    page = browser.page()
    page.show(width=360)
    page.load(bad.as_uri())
    assert page.evaluate(TOO_WIDE) == 0, "the policy holds back the style, and with it the width"
    assert len(page.complaints) >= 2
    page.evaluate("document.querySelector('p').style.width = '3000px'")
    assert page.evaluate(TOO_WIDE) > 0
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert {each[0] for each in violations(page)} >= {"image-alt", "html-has-lang", "document-title"}


@pytest.mark.parametrize("count", [10, 10_000])
def test_report_is_sound_in_a_browser(browser: Browser, tmp_path: Path, count: int) -> None:
    # The pages differ in numbers alone, but for rows that are not there: one of them is judged in CI.
    look_at(browser, write_page(tmp_path, count), judged=count > 10 or CAMPAIGN)


@pytest.mark.campaign
def test_report_on_a_million_certificates_is_sound_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    with closing(fill_estate(f"sqlite:///{tmp_path / 'i.db'}", tmp_path)) as inventory:
        fill_rows(tmp_path / "i.db", 1_000_000)
        began = time.process_time()
        report = make_report(inventory, check=check_report())
        collected = time.process_time()
        text = report_html(report)
        written = time.process_time()
    print(f"collected in {collected - began:.1f} s of CPU, written in {written - collected:.2f} s, {len(text)} octets")
    assert collected - began < 240
    assert written - collected < 1
    assert len(text.encode()) < MOST_BYTES
    file = tmp_path / "report.html"
    file.write_text(text, encoding="utf-8")
    look_at(browser, file)
