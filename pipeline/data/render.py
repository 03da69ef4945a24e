"""One word, shaped and drawn: HarfBuzz places the glyphs, FreeType fills them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import freetype
import numpy as np
import uharfbuzz as hb
from fontTools.ttLib import TTFont
from numpy.typing import NDArray

from pipeline.data.fonts import Face

EM: Final = 64
"""Pixels to the em that words are drawn with, before they are made smaller."""

_SUBPIXELS: Final = 64
_DOTTED_CIRCLE: Final = 0x25CC


@dataclass(frozen=True)
class _Opened:
    shaper: Any
    rasterizer: Any
    placeholders: frozenset[int]


@dataclass(frozen=True)
class _Glyph:
    left: int
    top: int
    ink: NDArray[np.uint8]


def draw(face: Face, word: str, spacing: float = 0.0) -> NDArray[np.uint8] | None:
    """The ink of a word, 0 to 255, cut to its extent.

    Args:
        face: the font.
        word: one word, without spaces.
        spacing: added after every cluster, in ems; leave it 0 where letters join.

    Returns:
        None if the font lacks a glyph for the word or cannot compose it.
    """
    font = _open(face)
    buffer = hb.Buffer()
    buffer.add_str(word)
    buffer.guess_segment_properties()
    hb.shape(font.shaper, buffer)

    # Gaps go between clusters only: inside one, marks are placed from where their base ended.
    infos, positions = buffer.glyph_infos, buffer.glyph_positions
    placed: list[tuple[int, int, _Glyph]] = []
    pen_x = pen_y = 0
    cluster = infos[0].cluster
    for info, position in zip(infos, positions, strict=True):
        if info.codepoint in font.placeholders:
            return None
        if info.cluster != cluster:
            pen_x += round(spacing * EM * _SUBPIXELS)
            cluster = info.cluster
        glyph = _glyph(face, info.codepoint)
        x = (pen_x + position.x_offset + _SUBPIXELS // 2) // _SUBPIXELS + glyph.left
        y = -(pen_y + position.y_offset + _SUBPIXELS // 2) // _SUBPIXELS - glyph.top
        if glyph.ink.size:
            placed.append((x, y, glyph))
        pen_x += position.x_advance
        pen_y += position.y_advance
    return _assembled(placed) if placed else None


def _assembled(placed: list[tuple[int, int, _Glyph]]) -> NDArray[np.uint8]:
    left = min(x for x, _, _ in placed)
    top = min(y for _, y, _ in placed)
    right = max(x + glyph.ink.shape[1] for x, _, glyph in placed)
    bottom = max(y + glyph.ink.shape[0] for _, y, glyph in placed)
    ink = np.zeros((bottom - top, right - left), np.uint8)
    for x, y, glyph in placed:
        height, width = glyph.ink.shape
        part = ink[y - top : y - top + height, x - left : x - left + width]
        np.maximum(part, glyph.ink, out=part)
    return ink


@lru_cache(maxsize=512)
def _open(face: Face) -> _Opened:
    font = TTFont(face.path, lazy=True)
    # Saved without its packing, which neither library below has to know then.
    font.flavor = None
    unpacked = io.BytesIO()
    font.save(unpacked, reorderTables=None)
    shaper = hb.Font(hb.Face(unpacked.getvalue()))
    shaper.scale = (EM * _SUBPIXELS, EM * _SUBPIXELS)
    unpacked.seek(0)
    rasterizer = freetype.Face(unpacked)
    rasterizer.set_pixel_sizes(0, EM)
    # HarfBuzz shows a mark that cannot stand where it does on a dotted circle.
    circle = shaper.get_nominal_glyph(_DOTTED_CIRCLE)
    return _Opened(shaper, rasterizer, frozenset({0, circle or 0}))


@lru_cache(maxsize=30_000)
def _glyph(face: Face, index: int) -> _Glyph:
    slot = _open(face).rasterizer
    slot.load_glyph(index, freetype.FT_LOAD_RENDER | freetype.FT_LOAD_NO_HINTING)
    bitmap = slot.glyph.bitmap
    # A column of padding may end each row of the bitmap.
    rows = np.array(bitmap.buffer, np.uint8).reshape(bitmap.rows, bitmap.pitch or 0)
    return _Glyph(slot.glyph.bitmap_left, slot.glyph.bitmap_top, rows[:, : bitmap.width])
