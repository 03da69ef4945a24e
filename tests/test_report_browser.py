"""The page in a real browser: it must look whole, complain of nothing and ask for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import NEEDED, Browser
from report_fakes import build

from pipeline.report import PAGE_FILE, write_report

pytestmark = [pytest.mark.slow, NEEDED]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = build(tmp_path_factory.mktemp("report"), each=8)
    write_report(
        workspace.params, workspace.reports, models=workspace.models, shards=workspace.shards
    )
    return workspace.reports / PAGE_FILE


@contextmanager
def opened(browser: Browser, page: Path, width: int, scheme: str) -> Iterator[None]:
    """The page, loaded; afterwards it must have been quiet and have asked for nothing."""
    browser.open(page.as_uri(), width, scheme)
    yield
    asked = [event["request"]["url"] for event in browser.reported("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    for complaint in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
        assert browser.reported(complaint) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_page_is_whole_and_quiet(browser: Browser, page: Path, width: int, scheme: str) -> None:
    with opened(browser, page, width, scheme):
        hidden = browser.evaluate(
            "[...document.querySelectorAll('table, img, figure svg, h2')]"
            ".filter(it => !it.closest('details:not([open])'))"
            ".filter(it => { const box = it.getBoundingClientRect();"
            " return box.width < 8 || box.height < 8 }).map(it => it.outerHTML.slice(0, 80))"
        )
        assert hidden == []
        broken = "[...document.images].filter(it => !it.complete || !it.naturalWidth).length"
        assert browser.evaluate(broken) == 0
        assert browser.evaluate("document.images.length") >= 10 * 3
        assert browser.evaluate("document.querySelectorAll('table').length") >= 8
        assert browser.evaluate("document.querySelectorAll('figure svg').length") >= 2 + 2 * 9
        # Wide tables scroll in their own boxes; the page itself never does.
        assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_page_follows_the_colour_scheme(browser: Browser, page: Path) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        with opened(browser, page, 1200, scheme):
            colours.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_page_can_be_used_without_a_picture(browser: Browser, page: Path) -> None:
    with opened(browser, page, 1200, "light"):
        unnamed = browser.evaluate(
            '[...document.querySelectorAll(\'img:not([alt]), img[alt=""], table:not(:has(th)),'
            ' svg[role="img"]:not([aria-label]), [aria-labelledby]\')]'
            ".filter(it => !it.hasAttribute('aria-labelledby') ||"
            " !document.getElementById(it.getAttribute('aria-labelledby'))).length"
        )
        assert unnamed == 0
        lost = browser.evaluate(
            "[...document.querySelectorAll('nav a')]"
            ".filter(it => !document.querySelector(it.getAttribute('href'))).length"
        )
        assert lost == 0


def test_closed_matrices_open(browser: Browser, page: Path) -> None:
    with opened(browser, page, 1200, "light"):
        browser.evaluate("document.querySelectorAll('details').forEach(it => { it.open = true })")
        flat = (
            "[...document.querySelectorAll('details table')].filter(it => !it.offsetHeight).length"
        )
        assert browser.evaluate(flat) == 0


def test_generated_banner_is_seen_first(browser: Browser, page: Path, tmp_path: Path) -> None:
    with opened(browser, page, 390, "light"):
        top = browser.evaluate("document.querySelector('.banner').getBoundingClientRect().top")
        table = browser.evaluate("document.querySelector('table').getBoundingClientRect().top")
        assert 0 < top < 900
        assert top < table
        browser.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 50_000
