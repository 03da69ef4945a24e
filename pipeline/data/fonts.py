"""The font families of every script, and which of them only the test words are drawn in.

The fonts come from npm packages, see :mod:`pipeline.data.packages`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from pipeline.data import packages
from pipeline.scripts import Split

_WEIGHTS: Final = (300, 400, 500, 600, 700, 800)

_SUBSETS: Final[dict[str, tuple[str, str]]] = {
    "Arabic": (
        "arabic",
        "almarai amiri cairo el-messiri lalezar noto-kufi-arabic noto-naskh-arabic "
        "noto-nastaliq-urdu noto-sans-arabic scheherazade-new tajawal vazirmatn",
    ),
    "Bengali": (
        "bengali",
        "alkatra atma baloo-da-2 galada google-sans hind-siliguri mina noto-sans-bengali "
        "noto-serif-bengali tiro-bangla",
    ),
    # Families of one house (Noto, Baloo, Hind, Mukta, Anek, Tiro) share their Latin letters,
    # so English takes at most one of each.
    "English": (
        "latin",
        "akaya-kanadaka alkatra almarai amiri atma baloo-bhai-2 benne cairo catamaran caveat "
        "coiny courier-prime eb-garamond el-messiri farsan galada google-sans hind hubballi "
        "inter kalam kavivanar khand lalezar lato lora mandali martel merriweather mina mogra "
        "mukta noto-sans noto-serif oswald playfair-display poppins ramabhadra rasa roboto "
        "rozha-one scheherazade-new shrikhand suranna tajawal tiro-bangla vazirmatn yatra-one",
    ),
    "Gujrathi": (
        "gujarati",
        "baloo-bhai-2 farsan google-sans hind-vadodara mogra mukta-vaani noto-sans-gujarati "
        "noto-serif-gujarati rasa shrikhand",
    ),
    "Hindi": (
        "devanagari",
        "alkatra google-sans hind kalam khand martel mukta noto-sans noto-sans-devanagari "
        "noto-serif-devanagari poppins rozha-one tiro-devanagari-hindi yatra-one",
    ),
    "Kannada": (
        "kannada",
        "akaya-kanadaka anek-kannada baloo-tamma-2 benne hubballi noto-sans-kannada",
    ),
    "Oriya": ("oriya", "alkatra anek-odia baloo-bhaina-2 google-sans noto-sans-oriya"),
    "Punjabi": (
        "gurmukhi",
        "baloo-paaji-2 google-sans mukta-mahee noto-sans-gurmukhi tiro-gurmukhi",
    ),
    "Tamil": (
        "tamil",
        "baloo-thambi-2 catamaran coiny google-sans hind-madurai kavivanar mukta-malar "
        "noto-sans-tamil noto-serif-tamil pavanam",
    ),
    "Telegu": (
        "telugu",
        "anek-telugu dhurjati google-sans gurajada hind-guntur lakki-reddy mallanna mandali "
        "noto-sans-telugu noto-serif-telugu ntr peddana ponnala ramabhadra ramaraja ravi-prakash "
        "suranna timmana tiro-telugu",
    ),
}

# Chosen by hand, about a quarter for every script, so that a design is on one side everywhere.
_TEST: Final = frozenset(
    {
        *("cairo", "el-messiri", "noto-naskh-arabic"),
        *("google-sans", "mina", "tiro-bangla", "tiro-devanagari-hindi", "khand"),
        *("rasa", "shrikhand", "kavivanar", "pavanam", "suranna", "ramaraja"),
        *("anek-kannada", "anek-telugu"),
        *("courier-prime", "lato", "lora", "oswald"),
    }
)


@dataclass(frozen=True, order=True)
class Face:
    """One weight of one family, with the letters of one script."""

    family: str
    subset: str
    weight: int

    @property
    def path(self) -> Path:
        """The font file; the zlib-packed one, which opens ten times as fast as woff2."""
        folder = packages.folder(f"@fontsource/{self.family}") / "files"
        path = folder / f"{self.family}-{self.subset}-{self.weight}-normal.woff"
        # Releases before 5.0 keep all letters of a weight in one file of this kind.
        return path if path.exists() else folder / f"{self.family}-all-{self.weight}-normal.woff"


def families(script: str, split: Split) -> tuple[str, ...]:
    """The families that words of ``script`` are drawn in; those of test are in no other split."""
    return tuple(f for f in _SUBSETS[script][1].split() if (f in _TEST) == (split == "test"))


@cache
def weights(script: str, family: str) -> tuple[Face, ...]:
    """The faces of ``family`` for ``script``, from light to heavy.

    Raises:
        DataError: the font files are not installed.
    """
    faces = (Face(family, _SUBSETS[script][0], weight) for weight in _WEIGHTS)
    found = tuple(face for face in faces if face.path.exists())
    if not found:
        raise packages.missing(f"{family} has no {_SUBSETS[script][0]} letters")
    return found
