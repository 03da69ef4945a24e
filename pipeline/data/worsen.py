"""Images made worse in one respect, by a known strength: the same strength, the same image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from pipeline.data.view import Grey


@dataclass(frozen=True)
class Change:
    """One respect in which images are made worse.

    Attributes:
        name: for example ``blur``.
        measure: what its strengths are, with their unit.
        said: a strength in a sentence, to be formatted.
        strengths: from the mildest on.
        apply: from an image (H, W), a strength and the image's key to the changed image.
    """

    name: str
    measure: str
    said: str
    strengths: tuple[float, ...]
    apply: Callable[[Grey, float, str], Grey]


def blur(grey: Grey, share: float) -> Grey:
    """Out of focus, by a Gaussian whose standard deviation is a share of the image's height."""
    if share == 0:
        # OpenCV would choose a deviation of its own.
        return grey
    deviation = share * grey.shape[0]
    soft = cv2.GaussianBlur(grey, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE)
    return soft.astype(np.uint8, copy=False)


def fade(grey: Grey, factor: float) -> Grey:
    """Grey values drawn towards the image's mean; a factor of 1 leaves them, 0 is one grey."""
    mean = grey.mean()
    faded: Grey = np.rint(mean + factor * (grey - mean)).astype(np.uint8)
    return faded


def shrink(grey: Grey, height: float) -> Grey:
    """So many pixels high, the aspect ratio kept; an image that is no higher is left as it is."""
    rows = round(height)
    if rows >= grey.shape[0]:
        return grey
    columns = max(1, round(grey.shape[1] * rows / grey.shape[0]))
    small = cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False)


def turn(grey: Grey, degrees: float, key: str) -> Grey:
    """Turned about its centre, one way or the other by its key.

    The frame stays, as in training views: what leaves it is lost, and what comes in continues the
    image's edge.
    """
    height, width = grey.shape
    signed = degrees if _number("turn", key) % 2 else -degrees
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), signed, 1)
    turned = cv2.warpAffine(grey, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return turned.astype(np.uint8, copy=False)


def cover(grey: Grey, share: float, key: str) -> Grey:
    """A share of its width covered by an upright bar of its mean grey, at a place by its key."""
    width = grey.shape[1]
    bar = round(share * width)
    left = _number("cover", key) % (width - bar + 1)
    covered = grey.copy()
    covered[:, left : left + bar] = round(float(grey.mean()))
    return covered


CHANGES: Final = (
    Change(
        "blur",
        "standard deviation, share of the height",
        "{:g} of the height",
        (0.02, 0.04, 0.06, 0.08),
        lambda grey, share, key: blur(grey, share),
    ),
    Change(
        "contrast",
        "factor of the distance from the mean grey",
        "a factor of {:g}",
        (0.5, 0.25, 0.1, 0.05),
        lambda grey, factor, key: fade(grey, factor),
    ),
    Change(
        "height",
        "height in pixels",
        "{:g} pixels",
        (20, 16, 12, 8),
        lambda grey, height, key: shrink(grey, height),
    ),
    Change("rotation", "degrees", "{:g} degrees", (5, 10, 15, 20), turn),
    Change("occlusion", "share of the width", "{:g} of the width", (0.1, 0.2, 0.3, 0.4), cover),
)


def _number(change: str, key: str) -> int:
    """A number that hangs on nothing but the change and the image's name."""
    return int.from_bytes(hashlib.blake2b(f"{change}/{key}".encode(), digest_size=8).digest())
