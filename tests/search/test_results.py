"""What a search leaves: the comparison, the table, the zoo, the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import run
from pyarrow import parquet
from searching import GOOD, params, project, tried
from tiny import tiny_model, tiny_shards

from pipeline.search.best import Best, Comparison, Side, found, front, read_best, write_best
from pipeline.search.compare import compare, verdict
from pipeline.search.journal import Journal, Role, Tried
from pipeline.search.page import page_of
from pipeline.search.table import write_table
from pipeline.search.zoo import Zoo

ROWS = [
    ({"teacher": GOOD, "distillation.weight": 0.5, "training.lr": 0.01}, [60.0, 70.0]),
    ({"teacher": GOOD, "distillation.weight": 0.9, "training.lr": 0.04}, [80.0, 75.0]),
    ({"teacher": "assistant-cnn", "distillation.weight": 0.4, "training.lr": 0.004}, [50.0]),
    ({"teacher": "assistant-cnn", "distillation.weight": 0.7, "training.lr": 0.02}, [85.0]),
]


def repeated(folder: Path, best: list[float], default: list[float]) -> Comparison | None:
    """The comparison of trials with these test accuracies, by seeds from 1."""
    journal = Journal(folder / "journal")
    roles: tuple[tuple[Role, list[float]], ...] = (("best", best), ("default", default))
    for role, accuracies in roles:
        for seed, accuracy in enumerate(accuracies, 1):
            trial = journal.begin(role, seed, {})
            metrics = {"validation_accuracy": 90.0, "validation_loss": 1.0}
            journal.epoch(trial.number, 1, {}, {**metrics, "test_accuracy": accuracy})
            journal.end(trial.number, "completed")
    return compare(journal.of("best"), journal.of("default"))


def test_the_interval_is_students_over_the_seeds_differences(tmp_path: Path) -> None:
    """Differences 1, 2 and 3: mean 2, standard error 1/√3, t of 2 degrees of freedom 4.3027."""
    made = repeated(tmp_path, [81.0, 82.0, 83.0], [80.0, 80.0, 80.0])
    assert made is not None
    assert made.difference == pytest.approx(2)
    assert made.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-5)
    assert made.high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-5)
    assert made.seeds == (1, 2, 3)
    assert made.best.test_accuracy == (81.0, 82.0, 83.0)


@pytest.mark.parametrize(
    ("best", "sentence"),
    [
        ([82.0, 82.1, 82.2], "The search was worth it: its best setting reads better than"),
        ([78.0, 78.1, 78.2], "The search was not worth it: its best setting reads worse"),
        ([82.0, 79.0, 80.1], "The search was not worth it as far as one can tell"),
        ([80.0, 80.0, 80.0], "The search was not worth it as far as one can tell"),
    ],
)
def test_a_plain_sentence_says_whether_it_was_worth_it(
    tmp_path: Path, best: list[float], sentence: str
) -> None:
    made = repeated(tmp_path, best, [80.0, 80.0, 80.0])
    assert made is not None
    said = verdict(made, is_default=False)
    assert said.startswith(sentence)
    assert "over 3 seeds" in said
    assert "no trial read better" in verdict(made, is_default=True)


def test_one_seed_is_too_few_to_compare(tmp_path: Path) -> None:
    assert repeated(tmp_path, [80.0, 81.0], [80.0]) is None


def test_the_front_has_whom_nobody_beats_in_both(tmp_path: Path) -> None:
    assert [one.number for one in front(tried(tmp_path, *ROWS))] == [1, 2, 4]


def test_best_yaml_survives_its_file(tmp_path: Path) -> None:
    trials = tried(tmp_path, *ROWS)
    side = Side(validation_accuracy=(90.0, 91.0), test_accuracy=(80.0, 81.0))
    best = Best(
        settings=trials[3].values,
        teachers={GOOD: 1.0},
        found=found(trials[3]),
        front=tuple(map(found, front(trials))),
        comparison=Comparison(seeds=(1, 2), best=side, default=side, difference=0, low=0, high=0),
    )
    write_best(tmp_path / "best.yaml", best)
    assert read_best(tmp_path / "best.yaml") == best


def test_the_table_names_the_model_folders_that_were_kept(tmp_path: Path) -> None:
    trials = tried(tmp_path, *ROWS)
    journal = Journal(tmp_path / "journal.jsonl")
    journal.end(journal.begin("search", 0, {"training.lr": 0.5}).number, "failed", "it broke")
    trials = journal.of("search")
    write_table(tmp_path / "trials.parquet", trials, ["trial-0002-epoch-001"], {})
    rows = parquet.read_table(tmp_path / "trials.parquet").to_pylist()
    assert [(row["trial"], row["epoch"]) for row in rows] == [
        *((1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (4, 1)),
        (5, None),
    ]
    assert [row["checkpoint"] for row in rows if row["checkpoint"]] == ["zoo/trial-0002-epoch-001"]
    assert rows[0]["distillation.weight"] == 0.5
    assert (rows[-1]["error"], rows[-1]["training.lr"]) == ("it broke", 0.5)


def test_a_model_that_a_kill_cut_short_is_not_kept(tmp_path: Path) -> None:
    index = tiny_shards(tmp_path / "shards")
    tiny_model(tmp_path / "zoo/trial-0001-epoch-001", index, steps=1)
    (tmp_path / "zoo/.trial-0002-epoch-001.x").mkdir()
    Zoo(tmp_path / "zoo", 5, index)
    assert [path.name for path in (tmp_path / "zoo").iterdir()] == ["trial-0001-epoch-001"]


def test_an_empty_table_is_one(tmp_path: Path) -> None:
    write_table(tmp_path / "trials.parquet", [], [], {})
    table = parquet.read_table(tmp_path / "trials.parquet")
    assert table.num_rows == 0
    assert {"trial", "epoch", "seed", "checkpoint"} <= set(table.column_names)


def page(trials: list[Tried], best: Best) -> str:
    return page_of(params().search, best, trials)


def test_the_page_draws_every_trial(tmp_path: Path) -> None:
    trials = tried(tmp_path, *ROWS, *ROWS, *ROWS)
    shown = page(trials, Best(settings=trials[3].values, found=found(trials[3])))
    assert shown.count('<polyline class="trial"') == 12
    assert "accuracy, %" in shown and "distillation.weight" in shown
    assert "12 trials saw 864 images" in shown
    assert "trial 4, 85.00 %" in shown
    assert "Importance of each setting" in shown
    assert "too few trials" not in shown
    assert "nan" not in shown.lower().replace("importance", "")
    numbers = re.findall(r'points="([^"]+)"', shown)
    assert all(0 <= float(x) <= 960 for line in numbers for x in re.findall(r"[\d.]+", line))


def test_a_page_of_one_trial_is_one(tmp_path: Path) -> None:
    trials = tried(tmp_path, ROWS[0])
    shown = page(trials, Best(settings=trials[0].values, found=found(trials[0])))
    assert "too few trials" in shown
    assert shown.count('<polyline class="trial"') == 1


def test_what_is_in_a_setting_cannot_break_the_page(tmp_path: Path) -> None:
    trials = tried(tmp_path, ROWS[0])
    trials[0].error = "<script>alert(1)</script>"
    assert "<script>" not in page(trials, Best(found=found(trials[0])))


def test_with_no_trials_nothing_is_searched_in_a_moment(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", trials=0)
    done = run(folder, "search")
    assert done.returncode == 0, done.stderr
    assert "Nothing was searched: search.trials is 0" in done.stdout
    assert read_best(folder / "search/best.yaml") == Best()
    assert [*(folder / "search/zoo").iterdir()] == []
    assert "Nothing was searched" in (folder / "search/index.html").read_text()
    assert parquet.read_table(folder / "search/trials.parquet").num_rows == 0
    assert not (folder / ".checkpoints").exists()
