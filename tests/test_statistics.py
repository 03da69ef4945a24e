"""The statistics, against values published by others and against laws they must keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import statistics

COUNTS = st.integers(0, 400)


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    [
        # Newcombe, Stat. Med. 17 (1998) 857-872, table I, method 3.
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.00, 16.11),
        (1, 29, 0.61, 17.18),
    ],
)
def test_wilson_gives_newcombes_table(correct: int, images: int, low: float, high: float) -> None:
    interval = statistics.wilson(correct, images)
    assert interval.value == pytest.approx(100 * correct / images)
    assert interval.low == pytest.approx(low, abs=0.005)
    assert interval.high == pytest.approx(high, abs=0.005)


@given(st.integers(1, 5000), st.data())
def test_wilson_bounds_are_where_the_score_test_just_refuses(
    images: int, data: st.DataObject
) -> None:
    correct = data.draw(st.integers(0, images))
    interval = statistics.wilson(correct, images)
    assert 0 <= interval.low <= interval.value <= interval.high <= 100
    for bound in (interval.low / 100, interval.high / 100):
        away = (correct / images - bound) ** 2
        allowed = statistics.Z_95**2 * bound * (1 - bound) / images
        assert away == pytest.approx(allowed, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("correct", "images"), [(0, 0), (5, 4), (-1, 4)])
def test_wilson_refuses_what_is_no_accuracy(correct: int, images: int) -> None:
    with pytest.raises(ValueError, match="is no accuracy"):
        statistics.wilson(correct, images)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        # Fagerland, Lydersen and Laake, BMC Med. Res. Methodol. 13 (2013) 91: the airway
        # hyper-responsiveness data of Bentur 2009 (1 against 7).
        (1, 7, 0.0703),
        # The same, complete response before and after therapy, Cavo 2012 (6 against 16).
        (6, 16, 0.0525),
        (0, 0, 1.0),
        (4, 4, 1.0),
    ],
)
def test_mcnemar_gives_published_values(only_first: int, only_second: int, p: float) -> None:
    assert statistics.mcnemar(only_first, only_second) == pytest.approx(p, abs=5e-5)


@given(COUNTS, COUNTS)
def test_mcnemar_is_symmetric_and_falls_with_the_imbalance(first: int, second: int) -> None:
    p = statistics.mcnemar(first, second)
    assert 0 < p <= 1
    assert p == statistics.mcnemar(second, first)
    if first >= second:
        assert statistics.mcnemar(first + 1, second) <= p


def test_mcnemar_holds_for_many_images() -> None:
    # Beyond 1,075 disagreements a probability computed term by term would vanish.
    assert statistics.mcnemar(3000, 3000) == 1.0
    assert 0 < statistics.mcnemar(3000, 3200) < 0.05


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ValueError, match="negative"):
        statistics.mcnemar(-1, 2)


def test_paired_difference_gives_published_interval() -> None:
    # Cavo 2012, as evaluated for chapter 8 of Fagerland, Lydersen and Laake, "Statistical
    # Analysis of Contingency Tables" (2017): -0.0621 (-0.1186 to -0.0046).
    interval = statistics.paired_difference(59, 6, 16, 80)
    assert interval.value == pytest.approx(-6.21, abs=0.005)
    assert interval.low == pytest.approx(-11.86, abs=0.005)
    assert interval.high == pytest.approx(-0.46, abs=0.005)


@given(COUNTS, COUNTS, COUNTS, st.integers(1, 400))
def test_paired_difference_keeps_its_laws(both: int, first: int, second: int, neither: int) -> None:
    interval = statistics.paired_difference(both, first, second, neither)
    mirrored = statistics.paired_difference(both, second, first, neither)
    assert -100 - 1e-9 <= interval.low <= interval.value <= interval.high <= 100 + 1e-9
    assert mirrored.low == pytest.approx(-interval.high)
    assert mirrored.high == pytest.approx(-interval.low)


def test_paired_difference_of_perfect_models_is_still_uncertain() -> None:
    interval = statistics.paired_difference(100, 0, 0, 0)
    assert interval.value == 0
    assert interval.low < 0 < interval.high


def test_compare_counts_the_disagreements() -> None:
    first = [True] * 8 + [False] * 2
    second = [True] * 5 + [False] * 3 + [True, False]
    comparison = statistics.compare(first, second)
    counts = (comparison.both, comparison.only_first, comparison.only_second, comparison.neither)
    assert counts == (5, 3, 1, 1)
    assert comparison.difference.value == pytest.approx(20)
    assert comparison.p == pytest.approx(0.625)
    assert not comparison.significant


def test_compare_refuses_other_images() -> None:
    with pytest.raises(ValueError, match="zip"):
        statistics.compare([True], [True, False])


@pytest.mark.parametrize(("seeds", "images"), [(0.06, 0.2), (0.03, 0.0)])
def test_an_interval_over_seeds_and_images_holds_about_what_it_promises(
    seeds: float, images: float
) -> None:
    # Over the images alone it would hold 54 and 61 %, with the normal distribution 84 and 80 %.
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        values = rng.normal(0, 0.25, (3, 300))
        values += rng.normal(0, images, (1, 300)) + rng.normal(0, seeds, (3, 1))
        interval = statistics.over_seeds(values).interval
        held += interval.low <= 0 <= interval.high
    assert 0.90 <= held / 1000 <= 0.97


def test_an_interval_over_seeds_and_images_is_that_of_the_mean_squares() -> None:
    # By hand: means by seed 2 and 4, by image 1, 3 and 5, of all 3; the rest is -1 and 1, 0 and 0,
    # 1 and -1. So MS of seeds 6, of images 8, of the rest 2; error variance (6 + 8 - 2) / 6 = 2,
    # and (2 - 1) * (12 / 6)^2 = 4 degrees of freedom, whose 97.5 % point is 2.776.
    table = np.array([[-1.0, 2.0, 5.0], [3.0, 4.0, 5.0]])
    found = statistics.over_seeds(table / 100).interval
    assert found.value == pytest.approx(3)
    assert found.high - found.value == pytest.approx(2.7764 * 2**0.5, rel=1e-3)


def test_without_seeds_of_their_own_it_is_the_interval_over_images() -> None:
    answers = np.random.default_rng(0).random(500) < 0.8
    mean = statistics.over_seeds(np.array([answers] * 4))
    error = 100 * answers.std(ddof=1) / np.sqrt(500)
    assert mean.interval.value == pytest.approx(100 * answers.mean())
    assert mean.interval.high - mean.interval.value == pytest.approx(1.95996 * error, rel=1e-4)


@pytest.mark.parametrize(("value", "p"), [(0, 1), (-1, 0)])
def test_what_nowhere_varies_has_no_width_and_a_certain_p(value: int, p: float) -> None:
    mean = statistics.over_seeds(np.full((3, 7), value))
    assert mean.interval == statistics.Interval(100 * value, 100 * value, 100 * value)
    assert mean.p == p


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (9,)])
def test_one_seed_or_image_is_too_few(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two seeds and two images"):
        statistics.over_seeds(np.zeros(shape))


def test_holm_gives_the_adjusted_values_of_his_steps() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.5, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []
