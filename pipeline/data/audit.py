"""What the images of a source are worth: counts, unreadable files, duplicates, wrong labels.

One pass over the bytes. Findings that falsify a result are refused unless ``data.allow`` has them.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final, get_args

from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict

from pipeline import scripts
from pipeline.data.source import Source, WordImage, script_of_name
from pipeline.errors import DataError
from pipeline.params import Data, Finding
from pipeline.scripts import SPLITS, Split

MAX_PIXELS: Final = 16_000_000
"""Pixels that an image may have; a word image has thousands."""

OFFICIAL: Final[dict[Split, int]] = {"train": 6412, "validation": 1069, "test": 3207}
"""Images of CVSI-2015."""
OFFICIAL_TEST: Final[dict[str, int]] = {
    "Arabic": 303,
    "Bengali": 310,
    "English": 341,
    "Gujrathi": 327,
    "Hindi": 326,
    "Kannada": 314,
    "Oriya": 326,
    "Punjabi": 316,
    "Tamil": 321,
    "Telegu": 323,
}
"""Test images of CVSI-2015, derived from the percentages that its entrants printed."""

_MEANING: Final[dict[Finding, str]] = {
    "test_in_train": "test images are in train too, byte for byte",
    "test_in_validation": "test images are in validation too, byte for byte",
    "validation_in_train": "validation images are in train too, byte for byte",
    "unreadable": "images cannot be read; if allowed, they are left out",
    "label_disagrees": "labels disagree; if allowed, the folder's label is believed",
}
_LEAKS: Final[dict[Finding, tuple[Split, Split]]] = {
    "test_in_train": ("test", "train"),
    "test_in_validation": ("test", "validation"),
    "validation_in_train": ("validation", "train"),
}
_NAMED_FILES = 3
_Known = dict[str, list[WordImage]]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Case(_Record):
    """One file that a finding is about, and what is the matter with it."""

    file: str
    detail: str


class Problem(_Record):
    """A finding that falsifies a result, with every file that it is about."""

    finding: Finding
    cases: tuple[Case, ...]

    def line(self) -> str:
        """The finding, its count, its meaning and its first files."""
        files = [f"{case.file} ({case.detail})" for case in self.cases[:_NAMED_FILES]]
        more = [f"and {len(self.cases) - _NAMED_FILES} more"] * (len(self.cases) > _NAMED_FILES)
        meaning = _MEANING[self.finding]
        return f"{self.finding}: {len(self.cases)} {meaning}: {', '.join(files + more)}"


class Audit(_Record):
    """What was found in a source.

    Attributes:
        source: ``generated`` or ``cvsi``, as ``data.source``.
        counts: images of every split and script, unreadable ones included.
        official: images of every split of CVSI-2015, where the source is ``cvsi`` and the scripts
            are the ten.
        official_test: its test images of every script, likewise.
        differences: where the counts are not the official ones, in plain words.
        problems: findings that falsify a result.
        duplicates: for every split, groups of files with the same bytes.
        unlabelled: test images without a label.
        notes: of the source.
    """

    source: str
    scripts: tuple[str, ...]
    images: int
    counts: dict[Split, dict[str, int]]
    official: dict[Split, int] | None
    official_test: dict[str, int] | None
    differences: tuple[str, ...]
    problems: tuple[Problem, ...]
    duplicates: dict[Split, tuple[tuple[str, ...], ...]]
    unlabelled: int
    notes: tuple[str, ...]

    def refused(self, data: Data) -> list[str]:
        """A line for every finding that ``data.allow`` does not name."""
        return [
            f"{problem.line()}. To go on all the same: data.allow: [{problem.finding}]"
            for problem in self.problems
            if problem.finding not in data.allow
        ]

    def check(self, data: Data) -> None:
        """Refuses images that would falsify a result.

        Raises:
            DataError: there are findings that ``data.allow`` does not name; each has its line.
        """
        if lines := self.refused(data):
            raise DataError(
                f"{data.root}: the audit refuses these images; mend them or allow the findings:\n"
                + "\n".join(f"  {line}" for line in lines)
            )

    def table(self) -> list[list[str]]:
        """Rows of images by script and split, beside the official numbers; first is the header."""
        header = ["script", *SPLITS]
        rows = [[name, *(str(self.counts[s][name]) for s in SPLITS)] for name in self.scripts]
        total = ["all", *(str(sum(self.counts[split].values())) for split in SPLITS)]
        if self.official is None or self.official_test is None:
            return [header, *rows, total]
        official = [str(self.official_test[name]) for name in self.scripts]
        rows = [[*row, number] for row, number in zip(rows, official, strict=True)]
        last = ["official", *(str(self.official[split]) for split in SPLITS), ""]
        return [[*header, "official test"], *rows, [*total, str(self.official["test"])], last]

    def lines(self) -> list[str]:
        """Everything else worth saying, the findings first."""
        doubled = [
            f"{split}: {sum(len(group) - 1 for group in groups)} images repeat another of the same "
            f"split, for example {' = '.join(groups[0])}"
            for split, groups in self.duplicates.items()
            if groups
        ]
        return [*(p.line() for p in self.problems), *self.differences, *doubled, *self.notes]


def audit(source: Source, data: Data) -> Audit:
    """Reads, hashes and decodes every image once.

    Raises:
        DataError: an archive is corrupt, or a file cannot be read from the disk.
    """
    unreadable: list[Case] = []
    known: dict[Split, _Known] = {split: defaultdict(list) for split in SPLITS}
    for image in source.images:
        content = image.read()
        if fault := _fault(content):
            unreadable.append(Case(file=image.origin, detail=fault))
        else:
            known[image.split][hashlib.sha256(content).hexdigest()].append(image)
    cases: dict[Finding, list[Case]] = {
        name: _leaks(known[held], known[seen]) for name, (held, seen) in _LEAKS.items()
    }
    cases["unreadable"] = unreadable
    cases["label_disagrees"] = [*_misnamed(source.images), *_two_labels(known)]
    counted = Counter((image.split, image.script) for image in source.images)
    counts = {split: {name: counted[split, name] for name in data.classes} for split in SPLITS}
    comparable = data.source == "cvsi" and data.classes == scripts.NAMES
    return Audit(
        source=data.source,
        scripts=data.classes,
        images=len(source.images),
        counts=counts,
        official=OFFICIAL if comparable else None,
        official_test=OFFICIAL_TEST if comparable else None,
        differences=tuple(_differences(counts)) if comparable else (),
        problems=tuple(
            Problem(finding=name, cases=tuple(cases[name]))
            for name in get_args(Finding)
            if cases[name]
        ),
        duplicates={
            split: tuple(
                tuple(image.origin for image in group)
                for group in known[split].values()
                if len(group) > 1
            )
            for split in SPLITS
        },
        unlabelled=source.unlabelled,
        notes=source.notes,
    )


def usable(source: Source, audited: Audit) -> tuple[WordImage, ...]:
    """The images that can be read, in the source's order; :meth:`Audit.check` goes before."""
    bad = {
        case.file
        for problem in audited.problems
        if problem.finding == "unreadable"
        for case in problem.cases
    }
    return tuple(image for image in source.images if image.origin not in bad)


def _fault(content: bytes) -> str | None:
    if not content:
        return "empty file"
    try:
        with warnings.catch_warnings():
            # PIL warns of a large image; the limit here is far lower and is no warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=("JPEG",))
        with image:
            # Only the header has been read so far: a huge image costs nothing.
            if image.width * image.height > MAX_PIXELS:
                return (
                    f"{image.width}x{image.height} pixels, more than {MAX_PIXELS // 10**6} million"
                )
            image.load()
    except Image.DecompressionBombError:
        return f"more than {MAX_PIXELS // 10**6} million pixels"
    except UnidentifiedImageError:
        return "broken JPEG: no whole header" if content.startswith(b"\xff\xd8") else "not a JPEG"
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        return f"broken JPEG: {error}"
    return None


def _leaks(held: _Known, seen: _Known) -> list[Case]:
    return [
        Case(file=image.origin, detail=f"= {seen[digest][0].origin}")
        for digest, images in held.items()
        if digest in seen
        for image in images
    ]


def _misnamed(images: Iterable[WordImage]) -> list[Case]:
    return [
        Case(file=image.origin, detail=f"its folder says {image.script}, its name {named}")
        for image in images
        if (named := script_of_name(image.key)) != image.script
    ]


def _two_labels(known: dict[Split, _Known]) -> list[Case]:
    everywhere: _Known = defaultdict(list)
    for split in SPLITS:
        for digest, images in known[split].items():
            everywhere[digest] += images
    return [
        Case(file=first.origin, detail=f"{first.script}, but {other.script} as {other.origin}")
        for first, *rest in everywhere.values()
        if (other := next((image for image in rest if image.script != first.script), None))
    ]


def _differences(counts: dict[Split, dict[str, int]]) -> list[str]:
    found = [(split, sum(counts[split].values()), OFFICIAL[split]) for split in SPLITS] + [
        (f"test, {name}", counts["test"][name], OFFICIAL_TEST[name]) for name in scripts.NAMES
    ]
    return [
        f"{what}: {number} images, {abs(number - official)} "
        f"{'more' if number > official else 'fewer'} than the official {official}"
        for what, number, official in found
        if number != official
    ]
