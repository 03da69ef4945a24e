"""What words stand on: caption panels, pictures, sign plates, paper. All of it computed."""

from __future__ import annotations

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

Pixels = MatLike
Values = NDArray[np.float32]

_LUMA = np.array([0.114, 0.587, 0.299], np.float32)


def colour(rng: np.random.Generator, luma: float, vivid: float) -> Values:
    """A random blue, green and red of the given luma; ``vivid`` 0 is grey, 1 is colourful."""
    luma = min(max(luma, 0.0), 255.0)
    shade = rng.uniform(0, 255, 3).astype(np.float32)
    chroma = shade - shade @ _LUMA
    # By luma alone a grey image tells text from ground: clipping must not move it.
    room = np.where(chroma > 0, 255 - luma, luma) / np.maximum(np.abs(chroma), 1)
    return np.float32(luma) + chroma * np.float32(min(vivid, float(room.min())))


def flat(height: int, width: int, shade: Values) -> Values:
    """One colour."""
    return np.broadcast_to(shade, (height, width, 3)).copy()


def gradient(
    rng: np.random.Generator, height: int, width: int, first: Values, last: Values
) -> Values:
    """One colour that passes into another, in any direction."""
    across, down = rng.uniform(-1, 1, 2)
    slope = np.linspace(0, down, height)[:, None] + np.linspace(0, across, width)[None, :]
    slope -= slope.min()
    slope /= max(slope.max(), 1e-6)
    share = slope.astype(np.float32)[..., None]
    return first + (last - first) * share


def clouds(rng: np.random.Generator, height: int, width: int, grain: float) -> Values:
    """Noise of several octaves between -1 and 1; ``grain`` is its largest wave in heights."""
    total = np.zeros((height, width), np.float32)
    strength, wave = 0.5, max(grain * height, 2.0)
    for _ in range(4):
        rows, columns = int(height / wave) + 2, int(width / wave) + 2
        coarse = rng.integers(0, 256, (rows, columns), np.uint8)
        fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        total += (fine.astype(np.float32) - 127.5) * np.float32(strength / 127.5)
        strength, wave = strength / 2, wave / 2.5
        if wave < 1:
            break
    return total


def scenery(
    rng: np.random.Generator, height: int, width: int, *, luma: float, spread: float, vivid: float
) -> Values:
    """Something like a part of a photograph: soft shapes and edges under uneven light.

    Args:
        rng: draws everything.
        height: of the result.
        width: of the result.
        luma: its mean.
        spread: how far the shapes' luma is from the mean.
        vivid: as in :func:`colour`.
    """
    canvas = flat(height, width, colour(rng, luma, vivid)).astype(np.uint8)
    for _ in range(int(rng.integers(2, 9))):
        shade = colour(rng, luma + rng.uniform(-spread, spread), vivid).tolist()
        x, y = int(rng.integers(-width // 4, width)), int(rng.integers(-height // 2, height))
        across = int(rng.integers(width // 8, width))
        down = int(rng.integers(height // 6, height))
        match int(rng.integers(4)):
            case 0:
                cv2.rectangle(canvas, (x, y), (x + across, y + down), shade, cv2.FILLED)
            case 1:
                lean = float(rng.uniform(0, 180))
                cv2.ellipse(canvas, (x, y), (across // 2, down // 2), lean, 0, 360, shade, -1)
            case 2:
                end = (int(rng.integers(width)), int(rng.integers(height)))
                cv2.line(canvas, (x, y), end, shade, int(rng.integers(1, max(height // 4, 2))))
            case _:
                step = int(rng.integers(3, 14))
                for bar in range(0, width, 2 * step):
                    cv2.rectangle(canvas, (bar, y), (bar + step, y + down), shade, cv2.FILLED)
    soft = 2 * int(rng.integers(0, max(height // 10, 2))) + 1
    image = cv2.GaussianBlur(canvas, (soft, soft), 0).astype(np.float32)
    texture = clouds(rng, height, width, rng.uniform(0.1, 1.0))[..., None]
    return image + texture * np.float32(rng.uniform(0.1, 0.7) * spread)


def paper(rng: np.random.Generator, height: int, width: int, luma: float) -> Values:
    """Near-uniform paper or screen: a tint, uneven light, fibres."""
    ground = flat(height, width, colour(rng, luma, rng.uniform(0, 0.15)))
    if rng.random() < 0.6:
        ground += clouds(rng, height, width, rng.uniform(1, 4))[..., None] * np.float32(
            rng.uniform(2, 22)
        )
    if rng.random() < 0.3:
        ground += clouds(rng, height, width, 0.1)[..., None] * np.float32(rng.uniform(2, 14))
    return ground
