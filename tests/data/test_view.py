from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.data.view import decode, fit
from pipeline.errors import DataError
from pipeline.params import View

VIEW = View(height=16, width=32)


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    done, content = cv2.imencode(".png", pixels)
    assert done
    return content.tobytes()


def test_decoded_image_has_its_own_size_and_grey_values() -> None:
    grey = np.arange(200, dtype=np.uint8).reshape(10, 20)
    np.testing.assert_array_equal(decode(png(grey), "x"), grey)


def test_colour_is_weighed_to_grey() -> None:
    colour = np.zeros((2, 2, 3), np.uint8)
    colour[..., 1] = 255  # green
    found = decode(png(colour), "x")
    assert found.shape == (2, 2)
    assert abs(int(found[0, 0]) - round(0.587 * 255)) <= 1


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\xff\xd8\xff\xe0", png(np.zeros((2, 2), np.uint8))[:20]]
)
def test_bytes_that_are_no_image_are_refused_by_name(content: bytes) -> None:
    with pytest.raises(DataError, match=r"train-000000\.tar!BEN_1\.jpg cannot be decoded"):
        decode(content, "train-000000.tar!BEN_1.jpg")


@pytest.mark.parametrize("size", [(16, 32), (1, 1), (200, 3), (3, 200), (40, 300), (500, 1000)])
def test_every_image_fits_the_view(size: tuple[int, int]) -> None:
    found = fit(np.full(size, 77, np.uint8), VIEW)
    assert found.shape == (16, 32)
    assert found.dtype == np.uint8
    assert (found == 77).all()


def test_an_image_of_the_views_size_is_left_as_it_is() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (16, 32), np.uint8)
    np.testing.assert_array_equal(fit(grey, VIEW), grey)


def test_a_short_word_keeps_its_proportions_and_stands_in_the_middle() -> None:
    grey = np.full((32, 16), 200, np.uint8)
    grey[:, 4:12] = 0  # a bar, half as wide as the word
    found = fit(grey, VIEW)
    dark = np.flatnonzero(found[8] < 100)
    assert (dark[0], dark[-1]) == (14, 17)


def test_the_sides_continue_the_edge() -> None:
    grey = np.zeros((16, 8), np.uint8)
    grey[:, 0], grey[:, -1] = 50, 150
    found = fit(grey, VIEW)
    assert (found[:, :13] == 50).all()
    assert (found[:, 19:] == 150).all()


def test_a_word_too_long_for_the_view_is_narrowed_not_cut() -> None:
    grey = np.full((16, 320), 255, np.uint8)
    grey[:, :20], grey[:, -20:] = 0, 0
    found = fit(grey, VIEW)
    assert found[8, 0] == found[8, -1] == 0
    assert found[8, 16] == 255
