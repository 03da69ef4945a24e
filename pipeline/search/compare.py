"""Whether a search was worth it: its best setting beside the default, with new seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy import stats

from pipeline.search.best import Comparison, Side
from pipeline.search.journal import Tried
from pipeline.search.trial import TEST


def compare(best: Sequence[Tried], default: Sequence[Tried]) -> Comparison | None:
    """Compares two settings on the seeds that both were trained with to the end.

    The interval is Student's, over the differences of each seed: it holds what weights, order and
    views of another seed change, not what other test images would.

    Returns:
        None where there are fewer than two such seeds.
    """
    first, second = (
        {one.seed: one for one in side if one.state == "completed"} for side in (best, default)
    )
    seeds = tuple(seed for seed in first if seed in second)
    if len(seeds) < 2:
        return None
    sides = [_side([side[seed] for seed in seeds]) for side in (first, second)]
    pairs = zip(sides[0].test_accuracy, sides[1].test_accuracy, strict=True)
    differences = [one - other for one, other in pairs]
    mean = statistics.mean(differences)
    deviation = statistics.stdev(differences) / math.sqrt(len(seeds))
    reach = float(stats.t.ppf(0.975, len(seeds) - 1)) * deviation
    low, high = mean - reach, mean + reach
    return Comparison(
        seeds=seeds,
        best=sides[0],
        default=sides[1],
        difference=mean,
        low=low,
        high=high,
    )


def _side(trials: Sequence[Tried]) -> Side:
    return Side(
        validation_accuracy=tuple(trial.accuracy for trial in trials),
        test_accuracy=tuple(
            next(one.metrics[TEST] for one in trial.epochs.values() if TEST in one.metrics)
            for trial in trials
        ),
    )


def verdict(comparison: Comparison | None, *, is_default: bool) -> str:
    """Whether the search was worth it, in a sentence.

    Args:
        comparison: of its best setting with the default.
        is_default: whether they are the same.
    """
    if is_default:
        return "The search was not worth it: no trial read better on validation than the default."
    if comparison is None:
        return "Too few trainings with new seeds came to their end to say whether it was worth it."
    low, high = comparison.low, comparison.high
    numbers = (
        f"{comparison.difference:+.2f} points on the test images, {low:+.2f} to {high:+.2f} over "
        f"{len(comparison.seeds)} seeds"
    )
    if low > 0:
        return (
            f"The search was worth it: its best setting reads better than the default ({numbers})."
        )
    if high < 0:
        return f"The search was not worth it: its best setting reads worse ({numbers})."
    return (
        "The search was not worth it as far as one can tell: its best setting cannot be told from "
        f"the default ({numbers})."
    )
