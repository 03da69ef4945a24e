"""The published results of CVSI-2015, task 4 (all ten scripts), in percent.

Source: N. Sharma et al., "ICDAR2015 Competition on Video Script Identification", ICDAR 2015, and
A. K. Bhunia et al., "Script identification in natural scene image and video frames using an
attention based Convolutional-LSTM network", Pattern Recognition 85 (2019) 172-184.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from pipeline.data.shards import Index
from pipeline.params import Data
from pipeline.scripts import NAMES


@dataclass(frozen=True)
class PublishedScript:
    """One row: a script, its official test words, and what each system read right of them."""

    script: str
    words: int
    accuracies: tuple[float, ...]


SYSTEMS: Final = ("Google", "HUST", "CVC-2", "C-DAC", "CUK", "Bhunia 2019")
TEST_WORDS: Final = 3207

SCRIPTS: Final = (
    PublishedScript("English", 341, (97.95, 93.55, 88.86, 68.33, 65.69, 94.20)),
    PublishedScript("Hindi", 326, (99.08, 96.31, 96.01, 71.47, 61.66, 96.50)),
    PublishedScript("Bengali", 310, (99.35, 95.81, 92.58, 91.61, 68.71, 95.60)),
    PublishedScript("Oriya", 326, (98.47, 98.47, 98.16, 88.04, 79.14, 98.30)),
    PublishedScript("Gujrathi", 327, (98.17, 97.55, 98.17, 88.99, 73.39, 98.70)),
    PublishedScript("Punjabi", 316, (99.38, 97.15, 96.52, 90.51, 92.09, 99.10)),
    PublishedScript("Kannada", 314, (97.77, 92.68, 97.13, 68.47, 71.66, 98.60)),
    PublishedScript("Tamil", 321, (99.38, 97.82, 99.69, 91.90, 82.55, 99.20)),
    PublishedScript("Telegu", 323, (99.69, 97.83, 93.80, 91.33, 57.89, 97.70)),
    PublishedScript("Arabic", 303, (100.0, 100.0, 99.67, 97.69, 89.44, 99.60)),
)

ALL: Final = (98.91, 96.69, 96.00, 84.66, 74.06, 97.75)

OTHERS: Final = (
    ("Feature Intensification", "98.88"),
    ("residual-attention multi-scale", "98.78"),
    ("EA-ConvNeXt", "97.3"),
    ("ECN", "97.2"),
    ("FAS-Res2Net", "96.0"),
    ("MuSIC", "93.10"),
)


def obstacle(index: Index) -> str | None:
    """Why accuracies on this data may not stand beside the published ones; None if they may.

    Other real words come in CVSI-2015's layout too, and so do generated ones whose statement was
    lost. What tells the official test set is how many words of each script it has: the published
    percentages leave no other numbers possible.
    """
    if index.source == "generated":
        return "the words of this page are generated"
    if index.scripts != NAMES:
        return f"the words of this page are of {len(index.scripts)} scripts, not of all ten"
    found: Counter[str] = Counter()
    for shard in index.of("test"):
        found.update(shard.classes)
    other = [
        f"{row.script} {found[row.script]:,} instead of {row.words:,}"
        for row in SCRIPTS
        if found[row.script] != row.words
    ]
    if not other:
        return None
    named = ", ".join([*other[:3], "..."] if len(other) > 3 else other)
    return (
        f"the test words of this page, {found.total():,}, are not those of the official test set, "
        f"{TEST_WORDS:,} ({named})"
    )


def command(data: Data) -> str:
    """What to run to have accuracies beside the published ones, for whoever has CVSI-2015."""
    settings = ["data.source=cvsi", "data.root=/path/to/CVSI2015"]
    # Changes to params.yaml stay in it: earlier ones would keep the row empty.
    if data.classes != NAMES:
        settings += ["data.task=4", "data.scripts=null"]
    if data.rev is not None:
        settings.append("data.rev=null")
    return " ".join(["dvc exp run", *(f"-S {setting}" for setting in settings)])
