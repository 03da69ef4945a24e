"""A folder as whoever has CVSI-2015 has it, of the official size, from first look to report.

Its images are patterns and hold nothing of CVSI-2015.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import tiny_params

from pipeline.compute import Compute
from pipeline.data.audit import OFFICIAL, OFFICIAL_TEST, Audit
from pipeline.data.shards import Index
from pipeline.evaluate import evaluate_run
from pipeline.params import Params
from pipeline.prepare import prepare
from pipeline.report import PAGE_FILE, write_report
from pipeline.reporting import published
from pipeline.runs import all_runs
from pipeline.scripts import NAMES, SCRIPTS, SPLITS, Split
from pipeline.train.run import train_run

pytestmark = pytest.mark.slow

TRAIN, VALIDATION = "TrainDataset_CVSI2015", "ValidationDataset_CVSI2015"
TRUTH, TEST = "GroundTruth_TestDataset_CVSI2015", "TestDataset_CVSI2015"
FOLDERS: dict[Split, str] = {"train": TRAIN, "validation": VALIDATION, "test": f"{TRUTH}/Task4"}
HEIGHTS, WIDTHS = (17, 58), (38, 152)


def counts(split: Split) -> dict[str, int]:
    """Images of every script; of train and validation only the sums are known."""
    if split == "test":
        return OFFICIAL_TEST
    each, more = divmod(OFFICIAL[split], len(NAMES))
    return {name: each + (place < more) for place, name in enumerate(NAMES)}


def pictures() -> Iterator[tuple[Split, str, bytes]]:
    """All images with their names, numbered anew in every split: stripes, aslant by the script."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: 2 * HEIGHTS[1], : 2 * WIDTHS[1]]
    for place, script in enumerate(SCRIPTS):
        angle = np.pi * place / len(SCRIPTS)
        along = columns * np.cos(angle) + rows * np.sin(angle)
        stripes = np.where(along % 10 < 4, 40, 200).astype(np.uint8)
        for split in SPLITS:
            for number in range(1, counts(split)[script.name] + 1):
                height, width = rng.integers(*HEIGHTS), rng.integers(*WIDTHS)
                top, left = rng.integers(HEIGHTS[1]), rng.integers(WIDTHS[1])
                grey = stripes[top : top + height, left : left + width]
                colours = rng.integers(0, 40, (height, width, 3), np.uint8) + grey[..., None]
                done, content = cv2.imencode(".jpg", colours)
                assert done
                folder = FOLDERS[split] + f"/{script.name}" * (split != "test")
                yield split, f"{folder}/{script.code}_{number:03d}.jpg", content.tobytes()


def make_downloads(root: Path) -> None:
    """Writes what lies there once someone has fetched the data set, and unpacked some of it."""
    archives: dict[Split, zipfile.ZipFile] = {}
    (root / TEST).mkdir(parents=True)
    for split in ("validation", "test"):
        archives[split] = zipfile.ZipFile(root / f"{FOLDERS[split].split('/')[0]}.zip", "w")
    for number, (split, name, content) in enumerate(pictures()):
        if split == "train":
            # Unpacked into a folder of the archive's name, on a system that shouts.
            path = (root / TRAIN / name).with_suffix(".JPG")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        else:
            archives[split].writestr(name, content)
        if split == "test":
            (root / TEST / f"{number:05d}.jpg").write_bytes(content)
    for archive in archives.values():
        archive.close()
    for litter in ("Thumbs.db", f"{TRAIN}/.DS_Store", f"{TRAIN}/{TRAIN}/Tamil/Thumbs.db"):
        (root / litter).write_bytes(b"\xd0\xcf")
    (root / "README.txt").write_text("for research only")


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    root = tmp_path_factory.mktemp("downloads") / "CVSI 2015 (1)"
    make_downloads(root)
    return tiny_params(
        data={"source": "cvsi", "root": str(root), "task": "4", "scripts": None},
        training={"epochs": 1, "batch_size": 64, "lr": 0.02},
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def prepared(params: Params, project: Path) -> tuple[Audit, Index]:
    return prepare(params, project / "shards", project / "reports/audit.json")


def test_it_is_read_whole_and_found_to_be_the_official_one(prepared: tuple[Audit, Index]) -> None:
    audit, index = prepared
    assert {split: index.images(split) for split in SPLITS} == OFFICIAL
    assert (audit.problems, audit.differences) == ((), ())
    assert audit.counts["test"] == OFFICIAL_TEST
    assert audit.unlabelled == OFFICIAL["test"]
    assert audit.notes == (
        "1 files are no .jpg and were left out (README.txt)",
        "3207 test images have no label and are not used",
    )
    assert published.obstacle(index) is None


def test_the_report_has_its_accuracies_beside_the_published(
    params: Params, project: Path, prepared: tuple[Audit, Index]
) -> None:
    shards, models, reports = project / "shards", project / "models", project / "reports"
    compute = Compute(workers=0, loaders=0, threads=1, storage=str(project / "checkpoints"))
    for run in all_runs(params):
        train_run(params, run.name, compute, shards=shards, models=models)
        folder = reports / "evaluations"
        evaluate_run(params, run.name, models=models, shards=shards, folder=folder)
    summary = write_report(params, reports, models=models, shards=shards)
    assert {run.test_images for run in summary.runs} == {prepared[1].images("test")}
    page = (reports / PAGE_FILE).read_text()
    part = page[page.index('<section id="published"') : page.index('<section id="runs"')]
    assert "empty" not in part
    rows = re.findall(r'<tr class="ours"><th scope="row">(.*?)</th>(.*?)</tr>', part)
    ((name, cells),) = rows
    (ours,) = [run for run in summary.runs if run.run == name]
    numbers = [float(number) for number in re.findall(r"<td>([\d.]+)", cells)]
    assert len(numbers) == 1 + len(NAMES)
    assert numbers[0] == pytest.approx(ours.accuracy, abs=0.006)
    # Each script's accuracy weighs as much as the script has test words.
    right = sum(
        words * accuracy / 100
        for words, accuracy in zip(OFFICIAL_TEST.values(), numbers[1:], strict=True)
    )
    assert right == pytest.approx(ours.correct, abs=0.2)
    assert ours.accuracy > 50, "stripes are soon learnt"
