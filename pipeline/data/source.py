"""Labelled word images, read from any layout that CVSI-2015 is met in: see ``LAYOUTS``.

Each may be a folder or a zip, at the root or below it, doubled by unzipping or not. Test images
without labels (``TestDataset_CVSI2015/*.jpg``) are counted only.

The label is the script's folder, else the file name's prefix. The key is the file's stem, with what
a shard's member name cannot hold replaced by ``-``; a stem without a script's prefix is given the
one of its label. Where a key comes twice in a split, a copy (same script, same bytes) is taken
once, and another image is numbered: ``BEN_7-2``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline import scripts
from pipeline.data.archive import File, list_files
from pipeline.errors import DataError
from pipeline.params import Data
from pipeline.scripts import Split

GENERATED_FILE: Final = "GENERATED.json"
"""The file by which generated data says that it is generated."""

LAYOUTS: Final = (
    "TrainDataset_CVSI2015/<Script>/<CODE>_NNN.jpg (and ValidationDataset_CVSI2015), "
    "GroundTruth_TestDataset_CVSI2015/Task4/<CODE>_NNN.jpg, "
    "Training|Validation|Testing/<Script>/*.jpg, or zips of these"
)

_SPLIT_FOLDER = re.compile(
    r"(?:(?P<train>train(?:ing|dataset)?)|(?P<validation>val(?:id|idation)?(?:dataset)?)"
    r"|(?P<truth>ground_?truth(?:_testdataset)?)|(?P<test>test(?:ing|dataset)?))"
    r"(?:_?cvsi_?2015)?|task_?(?P<task>[1-4])",
    re.IGNORECASE,
)
_FOLDERS = {name.lower(): name for name in scripts.NAMES}
_SPLIT_OF: dict[str, Split] = {"train": "train", "validation": "validation"}
_JPEG = (".jpg", ".jpeg")

_REMEDY = {
    "generated": "generate the words first, as make run does",
    "cvsi": "CVSI-2015 may not be passed on: request it from the organisers of the ICDAR 2015 "
    "competition on video script identification, or set data.source: generated and its root",
}
_CONFLICT = {
    "generated": f"has no {GENERATED_FILE} while data.source is generated; set data.source: cvsi "
    "for real images, or generate the words again",
    "cvsi": f"holds generated words ({GENERATED_FILE} says so) while data.source is cvsi; set "
    "data.source: generated, so that no number of theirs passes for CVSI-2015's",
}


@dataclass(frozen=True)
class WordImage:
    """One labelled word image.

    Attributes:
        key: its official name, for example ``BEN_621``; the only one of its split.
        script: its label, spelt as the data set spells it.
        origin: the path below the root, for messages.
        read: gives the bytes of the JPEG file, see :class:`pipeline.data.archive.File`.
    """

    key: str
    split: Split
    script: str
    origin: str
    read: Callable[[], bytes] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Source:
    """The images of a folder or a zip.

    Attributes:
        images: sorted by split, script and key.
        unlabelled: test images without a label.
        outside: images of scripts that were not asked for.
        notes: what was left out, moved or renamed, in plain words.
        generated: what ``GENERATED.json`` says, where there is one.
    """

    root: Path
    images: tuple[WordImage, ...]
    unlabelled: int
    outside: int
    notes: tuple[str, ...]
    generated: dict[str, Any] | None


class _Place(NamedTuple):
    """Where a file lies: split, task of the ground truth, folders below those."""

    split: Split | None
    task: str | None
    folders: tuple[str, ...]
    may_lack_label: bool


def read_source(data: Data) -> Source:
    """The images that ``data`` asks for, in three splits.

    Where there is no validation, a share of train becomes it. Where there is no test, validation is
    judged on in its place, and a share of train becomes validation. The notes say so.

    Raises:
        DataError: the root is missing, holds no training image of a chosen script, has a label
            outside the ten scripts, or is generated where ``data.source`` says otherwise.
    """
    if not data.root.exists():
        raise DataError(f"data.root {data.root} is missing; {_REMEDY[data.source]}")
    source = _collect(data.root, data.classes, whole=False)
    if (data.source == "generated") != (source.generated is not None):
        raise DataError(f"{data.root} {_CONFLICT[data.source]}")
    trained = {image.script for image in source.images if image.split == "train"}
    if lacking := [name for name in data.classes if name not in trained]:
        raise DataError(
            f"{data.root} has no training image of {', '.join(lacking)}; add them, or choose other "
            "scripts by data.scripts (a model is judged on any folder by evaluate --data)"
        )
    return _with_all_splits(source, data.held_out)


def read_labelled(folder: Path, classes: tuple[str, ...]) -> Source:
    """All labelled images of ``classes`` in a folder or zip, which may also have no split at all.

    Raises:
        DataError: the folder is missing, holds no labelled image of ``classes``, or has a label
            outside the ten scripts.
    """
    if not folder.exists():
        raise DataError(f"{folder} is missing; give a folder or .zip of labelled images: {LAYOUTS}")
    return _collect(folder, classes, whole=True)


def script_of_name(name: str) -> str | None:
    """The script whose prefix a file name or key has: Bengali for ``BEN_621``."""
    script = scripts.BY_CODE.get(name[:3].upper()) if name[3:4] == "_" else None
    return script.name if script else None


def _collect(root: Path, classes: tuple[str, ...], whole: bool) -> Source:
    files = list_files(root)
    jpegs = [file for file in files if file.path.suffix.lower() in _JPEG]
    placed = [(file, _place(file)) for file in jpegs]
    strays = [file.origin for file, place in placed if place.split is None]
    if not whole or len(strays) < len(jpegs):
        placed = [(file, place) for file, place in placed if place.split]
    task = _task({place.task for _, place in placed if place.task}, classes, root)
    images, unlabelled, outside = [], 0, 0
    for file, place in placed:
        if place.task not in (None, task):
            continue
        script = _label(file, place, root)
        if script is None:
            unlabelled += 1
        elif script not in classes:
            outside += 1
        else:
            # A dot would end the key of a shard's member early.
            key = re.sub(r"[^\w-]+", "-", file.path.stem)
            if script_of_name(key) is None:
                key = f"{scripts.BY_NAME[script].code}_{key}"
            images.append(WordImage(key, place.split or "test", script, file.origin, file.read))
    if not images:
        top = sorted({file.path.parts[1] for file in files})
        seen = ", ".join([*top[:10], "..."] if len(top) > 10 else top) or "nothing"
        raise DataError(
            f"{root} holds no labelled image of {', '.join(classes)} in a known layout "
            f"({unlabelled} have no label, {outside} are of other scripts, "
            f"{len(files) - len(jpegs)} files are no .jpg); at its top is {seen}; "
            f"known layouts: {LAYOUTS}"
        )
    distinct, notes = _distinct(images)
    others = {f.origin for f in files if f.path.name != GENERATED_FILE} - {f.origin for f in jpegs}
    notes += _note(sorted(others), "files are no .jpg and were left out")
    if len(placed) < len(jpegs):
        notes += _note(strays, "images lie in no split's folder and were left out")
    if unlabelled:
        notes.append(f"{unlabelled} test images have no label and are not used")
    if outside:
        notes.append(f"{outside} images are of scripts that were not chosen and were left out")
    if task not in (None, "4"):
        notes.append(f"the ground truth has no folder Task4, Task{task} was used")
    return Source(
        root, _sorted(distinct), unlabelled, outside, tuple(notes), _generated(files, root)
    )


def _place(file: File) -> _Place:
    folders = file.path.parts[:-1]
    found = [(at, m) for at, name in enumerate(folders) if (m := _SPLIT_FOLDER.fullmatch(name))]
    if not found:
        return _Place(None, None, folders, may_lack_label=False)
    named = [match.lastgroup or "" for _, match in found if match.lastgroup != "task"]
    split = _SPLIT_OF.get(named[-1], "test") if named else "test"
    last, innermost = found[-1]
    return _Place(split, innermost["task"], folders[last + 1 :], innermost.lastgroup == "test")


def _task(present: set[str], classes: tuple[str, ...], root: Path) -> str | None:
    # The folders of tasks 1 to 3 hold parts of Task4 and would only repeat its images.
    if len(present) <= 1 or "4" in present:
        return max(present, default=None)
    fitting = [task[0] for task, names in scripts.TASKS.items() if set(classes) <= set(names)]
    if task := max(present.intersection(fitting), default=None):
        return task
    raise DataError(f"{root}: no task's folder covers {', '.join(classes)}; add the folder Task4")


def _label(file: File, place: _Place, root: Path) -> str | None:
    known = [_FOLDERS[name.lower()] for name in place.folders if name.lower() in _FOLDERS]
    if known:
        return known[-1]
    if place.split and place.folders:
        raise DataError(
            f"{root}: {file.origin} lies in the folder '{place.folders[-1]}', which is no script; "
            f"the scripts are {', '.join(scripts.NAMES)}"
        )
    script = script_of_name(file.path.name)
    if script is None and not place.may_lack_label:
        raise DataError(
            f"{root}: {file.origin} lies in no script's folder, and its name begins with no "
            f"script's prefix; the prefixes are {', '.join(scripts.BY_CODE)}"
        )
    return script


def _distinct(images: Iterable[WordImage]) -> tuple[list[WordImage], list[str]]:
    groups: dict[tuple[Split, str], list[WordImage]] = defaultdict(list)
    for image in sorted(images, key=lambda image: (image.script, image.origin)):
        groups[image.split, image.key].append(image)
    taken = set(groups)
    distinct: list[WordImage] = []
    copies, renamed = [], []
    for (split, key), (first, *rest) in groups.items():
        kept = [first]
        for image in rest:
            if any(image.script == o.script and image.read() == o.read() for o in kept):
                copies.append(image.origin)
                continue
            name = next(n for n in (f"{key}-{i}" for i in count(2)) if (split, n) not in taken)
            taken.add((split, name))
            kept.append(replace(image, key=name))
            renamed.append(f"{image.origin} is {name}")
        distinct += kept
    notes = _note(copies, "images lie there twice, byte for byte, and were taken once")
    return distinct, notes + _note(renamed, "images bear another's name and were numbered")


def _with_all_splits(source: Source, share: float) -> Source:
    images, notes = source.images, list(source.notes)
    found = {image.split for image in images}
    held = f"{share:.0%} of train, by script and by a hash of the names, became validation"
    if "validation" not in found:
        images = _hold_out(images, share)
        notes.append(f"there are no validation images: {held}")
    if "test" not in found:
        images = tuple(replace(i, split="test") if i.split == "validation" else i for i in images)
        images = _hold_out(images, share)
        notes.append(f"there are no test images: validation is judged on as test, and {held}")
    return replace(source, images=images, notes=tuple(notes))


def _hold_out(images: tuple[WordImage, ...], share: float) -> tuple[WordImage, ...]:
    held: set[WordImage] = set()
    for script in {image.script for image in images}:
        train = [image for image in images if (image.split, image.script) == ("train", script)]
        train.sort(key=lambda image: hashlib.sha256(image.key.encode()).digest())
        held.update(train[: min(len(train) - 1, max(1, round(share * len(train))))])
    return _sorted(replace(i, split="validation") if i in held else i for i in images)


def _generated(files: tuple[File, ...], root: Path) -> dict[str, Any] | None:
    # At any depth: a zip of the folder, or the folder's parent, is as generated as the folder.
    marker = next((file for file in files if file.path.name == GENERATED_FILE), None)
    try:
        return dict(json.loads(marker.read())) if marker else None
    except (ValueError, TypeError) as error:
        raise DataError(f"{root}: {GENERATED_FILE} is no JSON mapping; generate again") from error


def _sorted(images: Iterable[WordImage]) -> tuple[WordImage, ...]:
    return tuple(sorted(images, key=lambda image: (image.split, image.script, image.key)))


def _note(items: list[str], text: str) -> list[str]:
    some = ", ".join([*items[:3], "..."] if len(items) > 3 else items)
    return [f"{len(items)} {text} ({some})"] if items else []
