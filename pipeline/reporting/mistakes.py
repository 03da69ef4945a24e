"""What a model reads wrong: its surest mistakes, and the scripts it mixes up with each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluation import Prediction


@dataclass(frozen=True)
class OneWay:
    """Words of one script that were read as another: the surest mistakes first."""

    script: str
    predicted: str
    rows: tuple[Prediction, ...]


@dataclass(frozen=True)
class Pair:
    """Two scripts that a model mixes up, the way it does so more often first.

    Attributes:
        ways: the two, each with that model's mistakes.
        mixed: of every run, its mistakes between the two in either way.
    """

    ways: tuple[OneWay, OneWay]
    mixed: dict[str, int]


def mixed_up(runs: Mapping[str, Sequence[Prediction]], chosen: str, most: int) -> tuple[Pair, ...]:
    """The pairs that one run mixes up most often, at most ``most``, with what others make of them.

    Args:
        runs: what each said of the same images.
        chosen: the run whose mistakes decide which pairs.
        most: pairs at most.
    """
    mistakes = surest_mistakes(runs[chosen])
    counts = {name: _counts(rows) for name, rows in runs.items()}
    # Of equals the alphabet decides, so that a page is the same every time.
    pairs = sorted(counts[chosen].items(), key=lambda item: (-item[1], item[0]))[:most]
    found = []
    for (one, other), _ in pairs:
        ways = [
            OneWay(a, b, tuple(row for row in mistakes if (row.script, row.predicted) == (a, b)))
            for a, b in ((one, other), (other, one))
        ]
        first, second = sorted(ways, key=lambda way: -len(way.rows))
        mixed = {name: count[one, other] for name, count in counts.items()}
        found.append(Pair((first, second), mixed))
    return tuple(found)


def surest_mistakes(rows: Iterable[Prediction]) -> list[Prediction]:
    """The images that a model read wrong, those it was surest of first."""
    wrong = (row for row in rows if row.predicted != row.script)
    return sorted(wrong, key=lambda row: (-row.probability, row.key))


def _counts(rows: Iterable[Prediction]) -> Counter[tuple[str, str]]:
    return Counter(
        (min(row.script, row.predicted), max(row.script, row.predicted))
        for row in rows
        if row.predicted != row.script
    )
