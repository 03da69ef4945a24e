"""Training views: each a function of (key, epoch, seed)."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_jpeg

from pipeline.data.augment import Augmenter
from pipeline.data.view import Grey, decode, fit
from pipeline.params import Augment, View

ALL = Augment(
    rotate=8, shear=12, scale=0.2, shift=0.1, perspective=0.1,
    blur=0.5, noise=0.5, jpeg=0.5, shrink=0.5, stroke=0.5, occlude=0.5,
)  # fmt: skip
SWITCHES = {
    "rotate": 45, "shear": 45, "scale": 0.5, "shift": 0.5, "perspective": 0.3,
    "blur": 1, "noise": 1, "jpeg": 1, "shrink": 1, "stroke": 1, "occlude": 1,
}  # fmt: skip
KEYS = [f"BEN_{number}" for number in range(40)]


def word() -> Grey:
    return fit(decode(tiny_jpeg("Hindi", 3), "x"), View(height=32, width=64))


def digest(augmenter: Augmenter, keys: list[str] = KEYS, epoch: int = 0) -> str:
    views = [augmenter(word(), key, epoch).tobytes() for key in keys]
    return hashlib.sha256(b"".join(views)).hexdigest()


def test_a_view_is_the_same_whenever_it_is_asked_for() -> None:
    augmenter = Augmenter(ALL, seed=3)
    first = augmenter(word(), "BEN_1", 5)
    for key, epoch in [("BEN_2", 5), ("BEN_1", 6)]:
        augmenter(word(), key, epoch)
    np.testing.assert_array_equal(augmenter(word(), "BEN_1", 5), first)
    np.testing.assert_array_equal(Augmenter(ALL, seed=3)(word(), "BEN_1", 5), first)


def test_views_do_not_hang_on_random_numbers_drawn_elsewhere() -> None:
    before = digest(Augmenter(ALL, 3))
    np.random.seed(99)
    np.random.random(7)
    assert digest(Augmenter(ALL, 3)) == before


@pytest.mark.parametrize(
    "other", [(4, "BEN_1", 5), (3, "BEN_2", 5), (3, "BEN_1", 6)], ids=["seed", "key", "epoch"]
)
def test_a_view_differs_when_seed_key_or_epoch_does(other: tuple[int, str, int]) -> None:
    seed, key, epoch = other
    first = Augmenter(ALL, 3)(word(), "BEN_1", 5)
    assert not np.array_equal(first, Augmenter(ALL, seed)(word(), key, epoch))


def test_views_are_the_same_in_another_process() -> None:
    code = "import test_augment as t; print(t.digest(t.Augmenter(t.ALL, 3)))"
    paths = [str(Path(__file__).parent), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == digest(Augmenter(ALL, 3))


def test_with_everything_off_a_view_is_its_image() -> None:
    augmenter = Augmenter(Augment(), seed=3)
    for key in KEYS:
        np.testing.assert_array_equal(augmenter(word(), key, 0), word())


@pytest.mark.parametrize("name", SWITCHES)
def test_each_switch_alone_changes_views(name: str) -> None:
    augmenter = Augmenter(Augment.model_validate({name: SWITCHES[name]}), seed=3)
    views = [augmenter(word(), key, 0) for key in KEYS]
    assert all(view.shape == word().shape and view.dtype == np.uint8 for view in views)
    assert any(not np.array_equal(view, word()) for view in views)


def test_a_probability_is_the_share_of_views_that_change() -> None:
    augmenter = Augmenter(Augment(noise=0.25), seed=0)
    changed = [not np.array_equal(augmenter(word(), f"K{n}", 0), word()) for n in range(400)]
    assert 60 < sum(changed) < 140


def test_transforms_draw_random_numbers_of_their_own() -> None:
    """With one probability for both, drawing the same number would make them always coincide."""
    # Thin stripes beside an even field: strokes merge the ones, noise disturbs the other.
    picture = np.full((32, 64), 100, np.uint8)
    picture[:, 1:32:2] = 200
    augmenter = Augmenter(Augment(stroke=0.5, noise=0.5), seed=1)
    seen = set()
    for key in KEYS:
        view = augmenter(picture, key, 0).astype(float)
        seen.add((float(view[:, 2:30].std()) < 40, float(view[:, 36:].std()) > 1))
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


def test_a_warp_keeps_the_centre_and_what_comes_in_continues_the_edge() -> None:
    dot = np.full((33, 65), 40, np.uint8)
    dot[15:18, 31:34] = 255
    augmenter = Augmenter(Augment(rotate=20, shear=20, scale=0.3, perspective=0.2), seed=0)
    for key in KEYS:
        view = augmenter(dot, key, 0)
        brightest = np.argwhere(view > 140).mean(axis=0)
        np.testing.assert_allclose(brightest, (16, 32), atol=1)
        assert view.min() >= 40, "nothing darker than the image comes in"


def test_vertical_and_horizontal_shift_are_not_tied_to_each_other() -> None:
    dot = np.zeros((64, 64), np.uint8)
    dot[30:34, 30:34] = 255
    augmenter = Augmenter(Augment(shift=0.2), seed=0)
    rows, columns = [], []
    for number in range(200):
        found = np.argwhere(augmenter(dot, f"K{number}", 0) > 128)
        if len(found):
            rows.append(found[:, 0].mean())
            columns.append(found[:, 1].mean())
    assert np.std(rows) > 2 and np.std(columns) > 2
    assert abs(float(np.corrcoef(rows, columns)[0, 1])) < 0.3
