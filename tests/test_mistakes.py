"""Which mistakes a report shows, and in which order."""

from __future__ import annotations

from pipeline.evaluation import Prediction
from pipeline.reporting.mistakes import mixed_up, surest_mistakes


def said(*mistakes: tuple[str, str, float]) -> list[Prediction]:
    """A right answer, then mistakes: the true script, what was read, how sure the model was."""
    rows = [Prediction("right", "A", "A", 1.0, 1.0)]
    rows += [
        Prediction(f"{script}-{number}", script, predicted, sure, 1 - sure)
        for number, (script, predicted, sure) in enumerate(mistakes)
    ]
    return rows


STUDENT = said(
    ("C", "D", 0.5),
    ("B", "A", 0.6),
    ("A", "B", 0.7),
    ("B", "A", 0.9),
    ("E", "D", 0.8),
)


def test_the_surest_mistakes_come_first() -> None:
    assert [row.key for row in surest_mistakes(STUDENT)] == ["B-3", "E-4", "A-2", "B-1", "C-0"]


def test_pairs_stand_in_the_order_of_their_mistakes_and_equals_in_that_of_the_alphabet() -> None:
    first, second = mixed_up({"student": STUDENT}, "student", 2)
    assert [(way.script, way.predicted) for way in first.ways] == [("B", "A"), ("A", "B")]
    assert [[row.key for row in way.rows] for way in first.ways] == [["B-3", "B-1"], ["A-2"]]
    assert [(way.script, len(way.rows)) for way in second.ways] == [("C", 1), ("D", 0)]


def test_other_runs_are_counted_on_the_pairs_of_the_chosen_one() -> None:
    teacher = said(("A", "B", 0.5), ("A", "E", 0.5), ("A", "E", 0.5))
    (pair,) = mixed_up({"student": STUDENT, "teacher": teacher}, "student", 1)
    assert pair.mixed == {"student": 3, "teacher": 1}
