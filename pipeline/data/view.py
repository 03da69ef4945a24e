"""From an image's bytes to what a model is shown of it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.params import View

Grey = npt.NDArray[np.uint8]


def decode(image: bytes, origin: str) -> Grey:
    """The grey values of an encoded image, (H, W).

    Raises:
        DataError: the bytes are no image; the message names ``origin``.
    """
    grey = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE) if image else None
    if grey is None:
        raise DataError(f"{origin} cannot be decoded as an image; replace or remove it")
    return grey.astype(np.uint8, copy=False)


def fit(grey: Grey, view: View) -> Grey:
    """Scales an image to the view's height and centres it, (view.height, view.width).

    The aspect ratio is kept unless the word is too long for the view; what is left at the sides
    continues the image's edge, so that padding makes no stroke of its own.
    """
    height, width = grey.shape
    target = min(view.width, max(1, round(width * view.height / height)))
    shrinks = view.height < height
    scaled = cv2.resize(
        grey,
        (target, view.height),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    left = (view.width - target) // 2
    right = view.width - target - left
    padded = cv2.copyMakeBorder(scaled, 0, 0, left, right, cv2.BORDER_REPLICATE)
    return padded.astype(np.uint8, copy=False)
