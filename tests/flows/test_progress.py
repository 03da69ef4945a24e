"""How far a stage is, read from the lines that the pipeline itself logs."""

from __future__ import annotations

import logging

import pytest

from flows.progress import share_done
from pipeline.progress import Progress


@pytest.mark.parametrize(
    ("line", "share"),
    [
        ("student-ocr  epoch 1/4   50 %  loss 0.810  738 images/s  0:09 left", 12.5),
        ("student-ocr  epoch 3/4  loss 0.466  validation 91.67 %  2159 images/s  0:00 left", 75),
        (
            "(RayTrainWorker pid=7) teacher-ocr  epoch 2/2    0 %  loss 1.0  9 images/s  0:01 left",
            50,
        ),
        ("student-ocr: 2 epochs of 48 images", None),
        ("Running stage 'student@ocr':", None),
    ],
)
def test_lines_of_a_training(line: str, share: float | None) -> None:
    assert share_done(line) == share


def test_lines_of_counted_work(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    Progress("evaluate student-ocr", "images")(3207, 3207)
    assert [share_done(line) for line in caplog.messages] == [100]
