"""Training views: each a function of (key, epoch, seed), whichever process makes it.

A teacher and a student that ask for one key in one epoch are so shown the same crop.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
from typing import Any

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
        self._compose = albumentations.Compose(_transforms(augment), is_check_shapes=False)
        # One pair of generators for all transforms, seeded anew for every view: with the library's
        # own seeding each transform would draw the same numbers, and the same ones every epoch.
        self._bits, self._python = np.random.PCG64(), random.Random()
        self._compose.set_random_state(np.random.Generator(self._bits), self._python)

    def __call__(self, grey: Grey, key: str, epoch: int) -> Grey:
        """The view of an image in an epoch.

        Args:
            grey: (H, W).
            key: the image's official name.
            epoch: counted from 0.

        Returns:
            (H, W).
        """
        digest = hashlib.blake2b(f"{self._seed}/{epoch}/{key}".encode(), digest_size=16).digest()
        state = int.from_bytes(digest)
        self._bits.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": 1},
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._python.seed(state)
        changed: Grey = self._compose(image=grey[:, :, None])["image"]
        return changed[:, :, 0]


class Warp(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Turns, slants, scales, shifts and tilts an image, all of it in one resampling.

    The library's Affine and Perspective together take four times as long and blur twice. What comes
    in from outside the image continues its edge.

    Args:
        augment: how far, at most, see :class:`pipeline.params.Augment`.
    """

    def __init__(self, augment: Augment) -> None:
        super().__init__(p=1)
        self._augment = augment

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draws the homography, (3, 3), from where a pixel was to where it goes."""
        height, width = params["shape"][:2]
        augment, uniform = self._augment, self.py_random.uniform
        turn = math.radians(uniform(-augment.rotate, augment.rotate))
        slant = math.tan(math.radians(uniform(-augment.shear, augment.shear)))
        wide = 1 + uniform(-augment.scale, augment.scale)
        tall = 1 + uniform(-augment.scale, augment.scale)
        across = width * uniform(-augment.shift, augment.shift)
        down = height * uniform(-augment.shift, augment.shift)
        # The sides come nearer or go farther by this share.
        tilt_x = 2 * uniform(-augment.perspective, augment.perspective) / width
        tilt_y = 2 * uniform(-augment.perspective, augment.perspective) / height
        cos, sin = math.cos(turn), math.sin(turn)
        linear = np.array(
            [
                [wide * cos, tall * (slant * cos - sin), across],
                [wide * sin, tall * (slant * sin + cos), down],
                [tilt_x, tilt_y, 1.0],
            ]
        )
        # All of this is about the centre of the image, which lies between pixels.
        x, y = (width - 1) / 2, (height - 1) / 2
        to_centre = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
        back = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
        return {"matrix": back @ linear @ to_centre}

    def apply(self, img: Grey, matrix: np.typing.NDArray[np.float64], **_: Any) -> Grey:
        """Resamples an image, (H, W, 1)."""
        size = (img.shape[1], img.shape[0])
        warped = cv2.warpPerspective(img, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        return warped.astype(np.uint8, copy=False)[:, :, None]


def _transforms(augment: Augment) -> list[albumentations.BasicTransform]:
    geometry = (
        *(augment.rotate, augment.shear, augment.scale),
        *(augment.shift, augment.perspective),
    )
    blur = [
        albumentations.GaussianBlur(blur_limit=(3, 5), p=1),
        albumentations.MotionBlur(blur_limit=(3, 5), p=1),
    ]
    stroke = [
        albumentations.Morphological(scale=(2, 2), operation=operation, p=1)
        for operation in ("erosion", "dilation")
    ]
    steps = [
        (any(geometry), Warp(augment)),
        (augment.stroke > 0, albumentations.OneOf(stroke, p=augment.stroke)),
        (
            augment.shrink > 0,
            albumentations.Downscale(scale_range=(0.4, 0.9), p=augment.shrink),
        ),
        (augment.blur > 0, albumentations.OneOf(blur, p=augment.blur)),
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
