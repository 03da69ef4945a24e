"""A real browser, driven over its own debugging pipe, so that no driver program is needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

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
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)
SECONDS = 60

NEEDED = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CI") != "true",
    reason="chromium is not installed, and this is no CI run that must have it",
)


class Browser:
    """A headless Chromium with one tab; ``events`` is everything the tab reported."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None, "CI must have chromium installed, for pages are tested in it"
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

    def open(self, url: str, width: int, scheme: str) -> None:
        """Loads a page, in a window of that width and a ``light`` or ``dark`` scheme."""
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
        self.call("Page.navigate", url=url)
        while not self.reported("Page.loadEventFired"):
            self._next()

    def until(self, expression: str) -> Any:
        """The value of a JavaScript expression, once it is true in the page.

        Raises:
            AssertionError: it did not become so; with what the page shows.
        """
        deadline = time.monotonic() + SECONDS
        while not (value := self.evaluate(expression)):
            shown = "document.body ? document.body.innerText : ''"
            assert time.monotonic() < deadline, (expression, self.evaluate(shown))
            time.sleep(0.1)
        return value

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def reported(self, method: str) -> list[dict[str, Any]]:
        """What the tab reported under that name since the page was opened."""
        return [event["params"] for event in self.events if event["method"] == method]

    def click(self, text: str) -> None:
        """Presses the mouse on the last element that shows just this text, once there is one."""
        find = (
            "(text => { const found = [...document.querySelectorAll('body *')].filter(it =>"
            " it.innerText && it.innerText.trim() === text && it.getClientRects().length).pop();"
            " if (!found) return null; found.scrollIntoView({block: 'center'});"
            " const box = found.getBoundingClientRect();"
            f" return [box.x + box.width / 2, box.y + box.height / 2] }})({json.dumps(text)})"
        )
        x, y = self.until(find)
        for kind in ("mousePressed", "mouseReleased"):
            button = {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """The page as a PNG: the whole of it, or what its window shows."""
        # For the whole page the window grows, and what is laid out by the window is caught moving.
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
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
