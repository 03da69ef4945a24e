"""A drawn word becomes a picture: a caption of video, a sign in a scene, or plain print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.data import backdrop, degrade
from pipeline.data.backdrop import Pixels, Values

HEIGHTS: Final = (17, 57)
WIDTHS: Final = (18, 151)
LONGEST: Final = 8.0
"""A word that is longer than this many of its heights would be too low to read."""

_WORK: Final = 2
"""Strokes, rims and shadows are made at this many times the final size."""


_Step = tuple[float, Callable[[np.random.Generator, Pixels], Pixels]]

# What happens to a picture on its way, in this order, each with its probability.
_BROADCAST: Final[tuple[_Step, ...]] = (
    (0.6, partial(degrade.blur, most=0.035)),
    (0.1, degrade.smear),
    (0.35, partial(degrade.coarsen, least=15)),
    (0.4, degrade.sharpen),
    (0.08, degrade.interlace),
    (0.4, partial(degrade.noise, most=9)),
)
_PHOTOGRAPHED: Final[tuple[_Step, ...]] = (
    (0.6, partial(degrade.blur, most=0.035)),
    (0.1, degrade.smear),
    (0.3, partial(degrade.coarsen, least=16)),
    (0.5, partial(degrade.noise, most=11)),
)
_SCANNED: Final[tuple[_Step, ...]] = (
    (0.5, partial(degrade.blur, most=0.03)),
    (0.3, partial(degrade.coarsen, least=15)),
    (0.2, degrade.sharpen),
    (0.4, partial(degrade.noise, most=10)),
    (0.2, degrade.black_and_white),
)


@dataclass(frozen=True)
class _Pose:
    """How a word stands in its picture; lengths in heights of the word."""

    height: float
    stretch: float = 1.0
    slant: float = 0.0
    tilt: float = 0.0
    depth: float = 0.0
    margin: tuple[float, float] = (0.0, 0.2)


@dataclass(frozen=True)
class _Layers:
    """Where the picture shows the word, its rim and its shadow: 0 to 255."""

    core: Pixels
    rim: Pixels
    shade: Pixels


def picture(rng: np.random.Generator, ink: Pixels) -> tuple[bytes, tuple[int, int]]:
    """A JPEG file that shows a word, and its height and width.

    Args:
        rng: decides everything about the picture but the word.
        ink: the word, drawn, not longer than ``LONGEST``.
    """
    draw = (_caption, _sign, _print)[int(rng.choice(3, p=(0.44, 0.22, 0.34)))]
    image, quality = draw(rng, ink)
    height, width = image.shape[:2]
    return degrade.jpeg(image, quality), (height, width)


def _caption(rng: np.random.Generator, ink: Pixels) -> tuple[Pixels, int]:
    pose = _Pose(
        height=float(np.clip(rng.normal(31, 9), 15, 54)),
        stretch=rng.uniform(0.75, 1.25),
        slant=rng.uniform(-0.05, 0.35) if rng.random() < 0.25 else 0.0,
        tilt=rng.normal(0, 2) if rng.random() < 0.2 else 0.0,
        depth=0.03 if rng.random() < 0.2 else 0.0,
        margin=(-0.05, 0.25),
    )
    layers = _placed(rng, ink, pose, rimmed=0.35, shaded=0.35)
    height, width = layers.core.shape
    ground_luma, text_luma = _lumas(rng, faint=0.1)
    # What is as bright as the text would hide it.
    apart = abs(text_luma - ground_luma)
    vivid = rng.uniform(0.2, 1)
    busy = rng.random()
    if busy < 0.3:
        ground = backdrop.flat(height, width, backdrop.colour(rng, ground_luma, vivid))
    elif busy < 0.6:
        ends = ground_luma + apart * rng.uniform(-0.4, 0.4, 2)
        first, last = (backdrop.colour(rng, luma, vivid) for luma in ends)
        ground = backdrop.gradient(rng, height, width, first, last)
    else:
        spread = rng.uniform(0.1, 0.5) * apart
        ground = backdrop.scenery(rng, height, width, luma=ground_luma, spread=spread, vivid=vivid)
        if busy < 0.75:
            veil = np.float32(rng.uniform(0.5, 0.9))
            ground = ground * (1 - veil) + backdrop.colour(rng, ground_luma, vivid) * veil
    text: Values = backdrop.colour(rng, text_luma, rng.uniform(0, 0.9))
    if rng.random() < 0.3:
        other = backdrop.colour(rng, text_luma + apart * rng.uniform(-0.4, 0.4), vivid)
        text = backdrop.gradient(rng, height, width, text, other)
    image = degrade.pixels(_inked(rng, ground, layers, text, text_luma))
    return _worn(rng, image, _BROADCAST), int(rng.integers(25, 81))


def _sign(rng: np.random.Generator, ink: Pixels) -> tuple[Pixels, int]:
    pose = _Pose(
        height=rng.uniform(17, 54),
        stretch=rng.uniform(0.6, 1.35),
        slant=rng.uniform(-0.1, 0.35) if rng.random() < 0.3 else 0.0,
        tilt=rng.uniform(-16, 16) if rng.random() < 0.25 else rng.normal(0, 3.5),
        depth=rng.uniform(0, 0.12),
        margin=(-0.05, 0.3),
    )
    layers = _placed(rng, ink, pose, rimmed=0.2, shaded=0.2)
    height, width = layers.core.shape
    ground_luma, text_luma = _lumas(rng, faint=0.2)
    vivid = rng.uniform(0.3, 1)
    if rng.random() < 0.75:
        ground = backdrop.flat(height, width, backdrop.colour(rng, ground_luma, vivid))
        ground += backdrop.clouds(rng, height, width, 0.2)[..., None] * np.float32(
            rng.uniform(0, 12)
        )
    else:
        ground = backdrop.scenery(
            rng,
            height,
            width,
            luma=ground_luma,
            spread=rng.uniform(0.1, 0.4) * abs(text_luma - ground_luma),
            vivid=vivid,
        )
    if rng.random() < 0.2:
        ground = _framed(rng, ground)
    text = backdrop.colour(rng, text_luma, rng.uniform(0, 1))
    image = _inked(rng, ground, layers, text, text_luma)
    # Light falls on the plate and the letters alike.
    light = 1 + backdrop.clouds(rng, height, width, rng.uniform(0.7, 3)) * np.float32(
        rng.uniform(0, 0.35)
    )
    shot = degrade.pixels(image * light[..., None])
    return _worn(rng, shot, _PHOTOGRAPHED), int(rng.integers(35, 93))


def _print(rng: np.random.Generator, ink: Pixels) -> tuple[Pixels, int]:
    pose = _Pose(
        height=rng.uniform(15, 52),
        stretch=rng.uniform(0.85, 1.25),
        slant=rng.uniform(0.12, 0.32) if rng.random() < 0.15 else 0.0,
        tilt=rng.normal(0, 1) if rng.random() < 0.4 else 0.0,
        margin=(-0.04, 0.22),
    )
    layers = _placed(rng, ink, pose, rimmed=0.0, shaded=0.0)
    core = layers.core
    height, width = core.shape
    paper_luma = rng.uniform(150, 255)
    ink_luma = paper_luma * rng.uniform(0.0, 0.6) if rng.random() < 0.8 else rng.uniform(0, 40)
    ground = backdrop.paper(rng, height, width, paper_luma)
    if rng.random() < 0.12:
        through = cv2.GaussianBlur(core[:, ::-1], (0, 0), 1.2).astype(np.float32)[..., None]
        ground -= through * np.float32(rng.uniform(0.05, 0.2))
    if rng.random() < 0.4:
        core = degrade.uneven_ink(rng, core)
    text = backdrop.colour(rng, ink_luma, rng.uniform(0, 0.2) if rng.random() < 0.8 else 1.0)
    cover = core.astype(np.float32)[..., None] / np.float32(255)
    image = degrade.pixels(ground + (text - ground) * cover)
    if rng.random() < 0.1:
        image = 255 - image
    return _worn(rng, image, _SCANNED), int(rng.integers(30, 93))


def _worn(rng: np.random.Generator, image: Pixels, steps: tuple[_Step, ...]) -> Pixels:
    for probability, step in steps:
        if rng.random() < probability:
            image = step(rng, image)
    return image


def _lumas(rng: np.random.Generator, faint: float) -> tuple[float, float]:
    """The luma of the ground and of the text; a share of ``faint`` differs little."""
    apart = rng.uniform(38, 75) if rng.random() < faint else rng.uniform(75, 230)
    dark = rng.uniform(0, 255 - apart)
    pair = (dark, dark + apart)
    return pair if rng.random() < 0.6 else pair[::-1]


def _inked(
    rng: np.random.Generator, ground: Values, layers: _Layers, text: Values, text_luma: float
) -> Values:
    shade = layers.shade.astype(np.float32)[..., None] / np.float32(255)
    rim = layers.rim.astype(np.float32)[..., None] / np.float32(255)
    core = layers.core.astype(np.float32)[..., None] / np.float32(255)
    # Rim and shadow set the text off, so they are on the other side of grey.
    off = rng.uniform(0, 60) if text_luma > 127 else rng.uniform(195, 255)
    edge = backdrop.colour(rng, off, rng.uniform(0, 0.8))
    image = ground + (edge - ground) * (shade * np.float32(rng.uniform(0.4, 1.0)))
    image = image + (edge - image) * rim
    return image + (text - image) * core


def _framed(rng: np.random.Generator, ground: Values) -> Values:
    height, width = ground.shape[:2]
    canvas = degrade.pixels(ground)
    shade = backdrop.colour(rng, rng.uniform(0, 255), 1.0).tolist()
    row = int(rng.choice((0, height - 1)))
    cv2.line(canvas, (0, row), (width, row), shade, int(rng.integers(1, 4)))
    return canvas.astype(np.float32)


def _placed(
    rng: np.random.Generator, ink: Pixels, pose: _Pose, rimmed: float, shaded: float
) -> _Layers:
    """The word and what sets it off, warped into a picture of an allowed size."""
    corners, (height, width) = _corners(rng, ink.shape, pose)
    tall = max(round(_WORK * float(corners[3, 1] - corners[0, 1])), 8)
    wide = max(round(ink.shape[1] * pose.stretch * tall / ink.shape[0]), 4)
    pad = tall // 4
    core = cv2.resize(ink, (wide, tall), interpolation=cv2.INTER_AREA)
    core = cv2.copyMakeBorder(core, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    if rng.random() < 0.35:
        # Fonts are cleaner than what is seen: strokes come out thicker or thinner.
        kernel = _disc(max(round(tall * rng.uniform(0.01, 0.045)), 1))
        core = cv2.dilate(core, kernel) if rng.random() < 0.7 else cv2.erode(core, _disc(1))
    rim = shade = np.zeros_like(core)
    if rng.random() < rimmed:
        rim = cv2.dilate(core, _disc(max(round(tall * rng.uniform(0.02, 0.07)), 1)))
    if rng.random() < shaded:
        across, down = (round(tall * part) for part in rng.uniform(-0.09, 0.09, 2))
        move = np.array([[1, 0, across], [0, 1, down]], np.float32)
        solid = np.maximum(core, rim)
        shade = cv2.warpAffine(solid, move, (solid.shape[1], solid.shape[0]), flags=0)
        shade = cv2.GaussianBlur(shade, (0, 0), float(rng.uniform(0.5, 0.06 * tall + 0.6)))
    inner = [[0, 0], [wide, 0], [wide, tall], [0, tall]]
    source = np.array(inner, np.float32) + np.float32(pad)
    # Corners are between pixels, pixels are sampled at their centres.
    matrix = cv2.getPerspectiveTransform(source - np.float32(0.5), corners - np.float32(0.5))
    stack = cv2.warpPerspective(np.dstack((core, rim, shade)), matrix, (width, height))
    layers = _Layers(*(np.ascontiguousarray(stack[..., layer]) for layer in range(3)))
    return _crowded(rng, layers) if rng.random() < 0.1 else layers


def _corners(
    rng: np.random.Generator, shape: tuple[int, ...], pose: _Pose
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Where the corners of the word come to lie, and the size of the picture around them."""
    wide, tall = min(pose.stretch * shape[1] / shape[0], LONGEST), 1.0
    corners = np.array([[0, 0], [wide, 0], [wide, tall], [0, tall]])
    corners[:2, 0] += pose.slant
    turn = np.deg2rad(pose.tilt)
    corners = corners @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners += rng.uniform(-pose.depth, pose.depth, (4, 2))
    left, top, right, bottom = rng.uniform(*pose.margin, 4)
    corners -= corners.min(axis=0) - (left, top)
    width, height = np.add(corners.max(axis=0), (right, bottom))

    scale = min(pose.height, WIDTHS[1] / width, HEIGHTS[1] / height)
    corners *= scale
    size = np.array([width, height]) * scale
    room = np.maximum(size, (WIDTHS[0], HEIGHTS[0]))
    corners += (room - size) / 2
    columns, rows = (int(length) for length in room)
    return corners.astype(np.float32), (rows, columns)


def _crowded(rng: np.random.Generator, layers: _Layers) -> _Layers:
    """The edges of other lines or words at the borders of a picture cut too wide."""
    core = layers.core.copy()
    height, width = core.shape
    rows, columns = int(rng.integers(1, height // 9 + 1)), int(rng.integers(1, height // 7 + 1))
    match int(rng.integers(4)):
        case 0:
            core[:rows] = np.maximum(core[:rows], np.roll(core[-rows:], width // 3, axis=1))
        case 1:
            core[-rows:] = np.maximum(core[-rows:], np.roll(core[:rows], width // 3, axis=1))
        case 2:
            core[:, :columns] = np.maximum(core[:, :columns], core[:, -columns:])
        case _:
            core[:, -columns:] = np.maximum(core[:, -columns:], core[:, :columns])
    return _Layers(core, layers.rim, layers.shade)


def _disc(radius: int) -> Pixels:
    size = 2 * radius + 1
    kernel: Pixels = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return kernel
