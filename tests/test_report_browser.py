"""The page in a real browser: it must look whole, complain of nothing and ask for nothing.

The browser is driven over its own debugging pipe, so no driver program is needed.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from report_fakes import build

from pipeline.report import PAGE_FILE, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)
SECONDS = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("CI") != "true",
        reason="chromium is not installed, and this is no CI run that must have it",
    ),
]


class Browser:
    """A headless Chromium with one tab; ``events`` is everything the tab reported."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None, (
            "CI must have chromium installed, for this page is tested in it"
        )
        pipes = [folder / "commands", folder / "answers"]
        for pipe in pipes:
            os.mkfifo(pipe)
        # Chromium takes commands on descriptor 3 and answers on 4.
        script = 'commands="$1" answers="$2"; shift 2; exec "$@" 3<"$commands" 4>"$answers"'
        command = ["sh", "-c", script, "sh", *map(str, pipes), CHROMIUM, *FLAGS]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.commands = pipes[0].open("wb", buffering=0)
        self.answers = pipes[1].open("rb", buffering=0)
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        self._number = 0
        self._received = b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.session = None
        self.call("Browser.close")
        try:
            self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self.commands.close()
            self.answers.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and gives its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, page: Path, width: int, scheme: str) -> None:
        """Loads a page from disk, in a window of that width and a ``light`` or ``dark`` scheme."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not self.reported("Page.loadEventFired"):
            self._next()

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def reported(self, method: str) -> list[dict[str, Any]]:
        """What the tab reported under that name since the page was opened."""
        return [event["params"] for event in self.events if event["method"] == method]

    def screenshot(self, file: Path) -> None:
        """The whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self.answers], [], [], SECONDS)
            assert ready, f"chromium said nothing for {SECONDS} s"
            part = self.answers.read(1 << 20)
            assert part, f"chromium ended with {self.process.wait(SECONDS)}"
            self._received += part
        first, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        if "method" in message:
            self.events.append(message)
        return message


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
    browser.open(page, width, scheme)
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
