"""Training views: each a function of (key, epoch, seed), whichever process makes it.

A teacher and a student that ask for one key in one epoch are so shown the same crop.
"""

from __future__ import annotations

import hashlib
import os
import random

import cv2
import numpy as np

# The library asks a server for newer versions when it is imported, unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations

from pipeline.data.view import Grey
from pipeline.params import Augment


class Augmenter:
    """Changes an image at random, reproducibly."""

    def __init__(self, augment: Augment, seed: int) -> None:
        self._seed = seed
        self._compose = albumentations.Compose(_transforms(augment))

    def __call__(self, grey: Grey, key: str, epoch: int) -> Grey:
        """The view of an image in an epoch.

        Args:
            grey: (H, W).
            key: the image's official name.
            epoch: counted from 0.

        Returns:
            (H, W).
        """
        digest = hashlib.blake2b(f"{self._seed}/{epoch}/{key}".encode(), digest_size=8).digest()
        state = int.from_bytes(digest)
        # One generator for all transforms: with set_random_seed each would draw the same numbers.
        self._compose.set_random_state(
            np.random.Generator(np.random.PCG64(state)), random.Random(state)
        )
        changed: Grey = self._compose(image=grey[:, :, None])["image"]
        return changed[:, :, 0]


def _transforms(augment: Augment) -> list[albumentations.BasicTransform]:
    edge = cv2.BORDER_REPLICATE
    scale = (1 - augment.scale, 1 + augment.scale)
    shift = (-augment.shift, augment.shift)
    contrast = (-augment.contrast, augment.contrast)
    geometry = (augment.rotate, augment.shear, augment.scale, augment.shift)
    blur = [
        albumentations.GaussianBlur(blur_limit=(3, 5), p=1),
        albumentations.MotionBlur(blur_limit=(3, 5), p=1),
    ]
    stroke = [
        albumentations.Morphological(scale=(2, 2), operation=operation, p=1)
        for operation in ("erosion", "dilation")
    ]
    steps = [
        (
            any(geometry),
            albumentations.Affine(
                rotate=(-augment.rotate, augment.rotate),
                shear={"x": (-augment.shear, augment.shear), "y": (0, 0)},
                scale={"x": scale, "y": scale},
                translate_percent={"x": shift, "y": shift},
                border_mode=edge,
                p=0.9,
            ),
        ),
        (
            augment.perspective > 0,
            albumentations.Perspective((0, augment.perspective), border_mode=edge, p=0.3),
        ),
        (augment.stroke > 0, albumentations.OneOf(stroke, p=augment.stroke)),
        (
            augment.shrink > 0,
            albumentations.Downscale(scale_range=(0.4, 0.9), p=augment.shrink),
        ),
        (augment.blur > 0, albumentations.OneOf(blur, p=augment.blur)),
        (
            augment.contrast > 0,
            albumentations.RandomBrightnessContrast(contrast, contrast, p=0.5),
        ),
        (augment.invert > 0, albumentations.InvertImg(p=augment.invert)),
        (
            augment.noise > 0,
            albumentations.GaussNoise(std_range=(0.02, 0.1), p=augment.noise),
        ),
        (
            augment.jpeg > 0,
            albumentations.ImageCompression(quality_range=(25, 80), p=augment.jpeg),
        ),
        (
            augment.occlude > 0,
            albumentations.CoarseDropout(
                num_holes_range=(1, 2),
                hole_height_range=(0.1, 0.5),
                hole_width_range=(0.02, 0.1),
                fill="random",
                p=augment.occlude,
            ),
        ),
    ]
    return [transform for wanted, transform in steps if wanted]
