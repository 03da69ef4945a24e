"""What cameras, scanners, transmission and compression do to a picture."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.data.backdrop import Pixels, Values, clouds


def pixels(values: Values) -> Pixels:
    """Values as an image: clipped and rounded down."""
    return np.clip(values, 0, 255).astype(np.uint8)


def blur(rng: np.random.Generator, image: Pixels, most: float) -> Pixels:
    """Out of focus, by a standard deviation of up to ``most`` of the height."""
    widest = max(most * image.shape[0], 0.31)
    return cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, widest)))


def smear(rng: np.random.Generator, image: Pixels) -> Pixels:
    """Motion along a row, a column or a diagonal."""
    length = int(rng.integers(2, 5))
    kernel = np.zeros((length, length), np.float32)
    match int(rng.integers(4)):
        case 0:
            np.fill_diagonal(kernel, 1)
        case 1:
            kernel[:, length // 2] = 1
        case _:
            kernel[length // 2] = 1
    return cv2.filter2D(image, -1, kernel / np.float32(length))


def coarsen(rng: np.random.Generator, image: Pixels, least: int) -> Pixels:
    """Drawn smaller and enlarged again, never through fewer than ``least`` rows."""
    height, width = image.shape[:2]
    rows = int(rng.integers(least, max(height, least + 1)))
    if rows >= height:
        return image
    columns = max(round(width * rows / height), 8)
    down = (cv2.INTER_AREA, cv2.INTER_LINEAR)[int(rng.integers(2))]
    up = (cv2.INTER_CUBIC, cv2.INTER_LINEAR)[int(rng.integers(2))]
    small = cv2.resize(image, (columns, rows), interpolation=down)
    return cv2.resize(small, (width, height), interpolation=up)


def sharpen(rng: np.random.Generator, image: Pixels) -> Pixels:
    """Edges overdone until they ring, as in broadcast video."""
    soft = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.7, 1.6))).astype(np.float32)
    sharp = image.astype(np.float32)
    return pixels(sharp + (sharp - soft) * np.float32(rng.uniform(0.5, 2.0)))


def interlace(rng: np.random.Generator, image: Pixels) -> Pixels:
    """Every other row from a moment later, when the picture had moved on."""
    combed = image.copy()
    combed[1::2] = np.roll(image[1::2], int(rng.choice((-2, -1, 1, 2))), axis=1)
    return combed


def noise(rng: np.random.Generator, image: Pixels, most: float) -> Pixels:
    """Grain, the same in all three colours half of the time."""
    shape = image.shape if rng.random() < 0.5 else (*image.shape[:2], 1)
    grain = rng.standard_normal(shape, np.float32) * np.float32(rng.uniform(1, most))
    return pixels(image.astype(np.float32) + grain)


def uneven_ink(rng: np.random.Generator, ink: Pixels) -> Pixels:
    """Ink that spread or broke: strokes swell, shrink and crumble from place to place."""
    height, width = ink.shape
    soft = cv2.GaussianBlur(ink, (0, 0), float(rng.uniform(0.6, 1.2))).astype(np.float32)
    rough = clouds(rng, height, width, rng.uniform(0.05, 0.4)) * np.float32(rng.uniform(0.1, 0.3))
    # Between paper and the middle of a stroke, however thin the strokes are.
    peak = np.float32(np.sort(soft, axis=None)[-max(soft.size // 20, 1)])
    level = peak * (np.float32(rng.uniform(0.35, 0.6)) + rough)
    return pixels((soft - level) * np.float32(6) + np.float32(127))


def black_and_white(rng: np.random.Generator, image: Pixels) -> Pixels:
    """A scanner's line-art mode: every pixel is paper or ink."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    low, high = int(grey.min()), int(grey.max())
    level = low + (high - low) * rng.uniform(0.42, 0.66)
    return cv2.cvtColor(np.where(grey > level, 255, 0).astype(np.uint8), cv2.COLOR_GRAY2BGR)


def jpeg(image: Pixels, quality: int) -> bytes:
    """The bytes of a JPEG file."""
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return encoded.tobytes()
