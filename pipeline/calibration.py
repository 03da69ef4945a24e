"""Whether a model is as sure as it is right, and what a temperature on its logits makes of that."""

from __future__ import annotations

import math
from typing import Final

from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from pipeline.evaluation import Bin, Calibration
from pipeline.inference import Answers

BINS: Final = 15
_LEAST, _MOST = 0.05, 20.0


def calibration(answers: Answers, validation: Answers) -> Calibration:
    """How sure a model is of its answers, and how sure it should be.

    Args:
        answers: of the images that it is judged on.
        validation: of others, by which the temperature is chosen.
    """
    found = temperature(validation.logits, validation.labels)
    plain = bins(answers.logits, answers.labels)
    scaled = bins(answers.logits / found, answers.labels)
    return Calibration(
        error=calibration_error(plain),
        temperature=found,
        error_scaled=calibration_error(scaled),
        bins=plain,
        bins_scaled=scaled,
    )


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature with the least cross-entropy, between 0.05 and 20.

    Guo et al., "On calibration of modern neural networks" (2017), section 4.2.

    Args:
        logits: (N, classes).
        labels: int64 (N,).
    """

    def loss(logarithm: float) -> float:
        return float(functional.cross_entropy(logits.double() / math.exp(logarithm), labels))

    bounds = (math.log(_LEAST), math.log(_MOST))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)


def bins(logits: Tensor, labels: Tensor) -> tuple[Bin, ...]:
    """Images by the probability of what the model chose, in 15 bins of one width.

    Args:
        logits: (N, classes).
        labels: int64 (N,).

    Returns:
        The bins that hold an image, from the least sure on.
    """
    sure, said = logits.double().softmax(dim=1).max(dim=1)
    places = (sure * BINS).ceil().long().clamp(1, BINS)
    right = (said == labels).double()
    return tuple(
        Bin(
            images=int(within.sum()),
            confidence=100 * float(sure[within].mean()),
            accuracy=100 * float(right[within].mean()),
        )
        for place in range(1, BINS + 1)
        if (within := places == place).any()
    )


def calibration_error(found: tuple[Bin, ...]) -> float:
    """The expected calibration error, in percent points: Guo et al. (2017), equation 3."""
    images = sum(one.images for one in found)
    return sum(one.images * abs(one.confidence - one.accuracy) for one in found) / images
