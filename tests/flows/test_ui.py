"""Prefect's pages of the flow in a real browser: what people look for is there to be seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import NEEDED, Browser
from prefect.client.schemas.objects import FlowRun
from serving import Served, serve, until

from flows.request import Request

pytestmark = [pytest.mark.slow, pytest.mark.long, NEEDED]

COMPLETED = np.array([78, 160, 33])
"""The green of a task that went well, in the graph: blue, green, red."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("ui") / "project") as started:
        yield started


@pytest.fixture(scope="module")
def run(served: Served) -> FlowRun:
    """A finished one."""
    return served.ended(served.submit(), "Completed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@contextmanager
def opened(browser: Browser, served: Served, path: str) -> Iterator[None]:
    """A page of the UI; afterwards it must have asked nobody but the server."""
    server = served.settings["PREFECT_API_URL"].removesuffix("/api")
    browser.open(server + path, 1400, "dark")
    yield
    asked = [event["request"]["url"] for event in browser.reported("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith((server, "data:", "blob:"))] == []


def shows(browser: Browser, *texts: str) -> None:
    for text in texts:
        browser.until(f"document.body.innerText.includes({text!r})")


def boxes(file: Path) -> int:
    """How many tasks that went well a picture of the graph shows."""
    picture = cv2.imread(str(file))
    assert picture is not None
    green = (np.abs(picture.astype(int) - COMPLETED).max(axis=2) < 12).astype(np.uint8)
    _, _, found, _ = cv2.connectedComponentsWithStats(green)
    return int((found[1:, cv2.CC_STAT_AREA] > 100).sum())


def test_a_run_is_found_with_its_tasks_graph_and_artifacts(
    browser: Browser, served: Served, run: FlowRun, tmp_path: Path
) -> None:
    with opened(browser, served, "/"):
        shows(browser, "Active Work Pools", "script-distill")
        browser.click("Runs")
        browser.click(run.name)
        browser.until(f"location.pathname === '/runs/flow-run/{run.id}'")
        shows(browser, "Completed", "6 Task runs", "Running stage 'student-alone'")
        browser.until("!!document.querySelector('canvas')")

        def drawn() -> bool:
            browser.screenshot(tmp_path / "run.png", whole=False)
            return boxes(tmp_path / "run.png") >= 6

        until(drawn, lambda: f"the graph lacks tasks: {tmp_path / 'run.png'}", 30)
        browser.click("Task Runs")
        shows(browser, *served.tasks(run.id))
        browser.click("Artifacts")
        shows(browser, "result-matrix", "student-alone", "progress-student-alone")
        browser.screenshot(tmp_path / "artifacts.png", whole=False)
        browser.click("result-matrix")
        shows(browser, "91.67 (82.67–96.67)", "not CVSI-2015")
        browser.screenshot(tmp_path / "matrix.png", whole=False)


@pytest.mark.parametrize(
    ("key", "texts"),
    [
        ("result-matrix", ("student of the assistant", "91.67 (82.67–96.67)")),
        ("student-alone", ("validation_accuracy", "images/s")),
        ("progress-student-alone", ("Progress: 100%",)),
    ],
)
def test_artifacts_are_found_by_key(
    browser: Browser, served: Served, run: FlowRun, key: str, texts: tuple[str, ...], tmp_path: Path
) -> None:
    with opened(browser, served, f"/artifacts/key/{key}"):
        shows(browser, f"Created {key}", run.name)
        browser.screenshot(tmp_path / "key.png", whole=False)
        browser.click(str(served.artifacts(run.id)[key].id)[:8])
        shows(browser, *texts)
        browser.screenshot(tmp_path / "artifact.png", whole=False)


def test_the_form_describes_and_types_every_parameter(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    local = served.client.read_deployment_by_name("distill-pipeline/local")
    with opened(browser, served, f"/deployments/deployment/{local.id}/run"):
        for name, field in Request.model_fields.items():
            shows(browser, name, str(field.description).replace("`", ""))
        assert browser.evaluate("document.querySelectorAll('input[type=number]').length") == 1
        switches = browser.evaluate("document.querySelectorAll('[role=switch]').length")
        assert switches >= sum(field.annotation is bool for field in Request.model_fields.values())
        browser.screenshot(tmp_path / "form.png", whole=False)
