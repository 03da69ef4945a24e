"""The report, from seeded fakes: its contract and its honesty."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_fakes import Workspace, build, edit, write_audit
from rich.console import Console

from pipeline import evaluation as evaluations
from pipeline.params import Data
from pipeline.report import PAGE_FILE, SUMMARY_FILE, Summary, summary_table, write_report
from pipeline.reporting import figures, published
from pipeline.reporting.evidence import gather
from pipeline.reporting.matrix import sentence, verdicts
from pipeline.reporting.templating import heat, p_value, short, signed, size
from pipeline.runs import all_runs
from pipeline.scripts import NAMES
from pipeline.statistics import compare

RUNS = 4 * 2 + 2
FILLED_BY = "dvc exp run -S data.source=cvsi -S data.root=/path/to/CVSI2015"
COUNTS = {"train": 8, "validation": 3, "test": 6}


def write(workspace: Workspace) -> tuple[Summary, str]:
    summary = write_report(
        workspace.params, workspace.reports, models=workspace.models, shards=workspace.shards
    )
    return summary, (workspace.reports / PAGE_FILE).read_text()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return build(tmp_path)


def section(page: str, name: str) -> str:
    start = page.index(f'<section id="{name}"')
    return page[start : page.index("</section>", start)]


def choose(workspace: Workspace, run: str) -> None:
    """Makes a student the best on validation."""
    model = workspace.models / run / "model.json"
    metrics = json.loads(model.read_text())["metrics"]
    edit(model, metrics=metrics | {"validation_accuracy": 100.0})


def pictured(part: str) -> list[tuple[str, str, str]]:
    """The words a part of the page shows: key, true script, what was read."""
    return re.findall(r'alt="Word image (\w+): (\w+), read as (\w+)"', part)


def assert_row_is_empty(part: str, command: str) -> None:
    """The last row has no number, and the command that fills it stands below."""
    assert '<td class="text none" colspan="11">empty; see below<' in part
    assert part.count("<td>") == (len(published.SYSTEMS) + 1) * (1 + len(NAMES))
    assert f"<pre><code>{command}</code></pre>" in part


def make_official(monkeypatch: pytest.MonkeyPatch, words: int, **others: int) -> None:
    """Makes so many words of every script the official test set."""
    rows = [replace(row, words=others.get(row.script, words)) for row in published.SCRIPTS]
    monkeypatch.setattr(published, "SCRIPTS", tuple(rows))
    monkeypatch.setattr(published, "TEST_WORDS", sum(row.words for row in rows))


def test_summary_is_the_contract(workspace: Workspace) -> None:
    summary, _ = write(workspace)
    content = json.loads((workspace.reports / SUMMARY_FILE).read_text())
    index = json.loads((workspace.shards / "index.json").read_text())
    assert content["data"] == {
        "source": "generated",
        "scripts": list(NAMES),
        "images": {"train": 80, "validation": 30, "test": 60},
        "version": index["version"],
    }
    assert list(content) == ["data", "runs"]
    assert [run["run"] for run in content["runs"]] == [r.name for r in all_runs(workspace.params)]
    kinds = {
        "run": str,
        "role": str,
        "model": str,
        "teachers": list,
        "parameters": int,
        "seeds": list,
        "test_images": int,
        "correct": int,
        "accuracy": float,
        "accuracy_low": float,
        "accuracy_high": float,
        "macro_f1": float,
        "latency_ms": float,
    }
    for run in content["runs"]:
        assert {key: type(value) for key, value in run.items()} == kinds
        assert run["accuracy_low"] <= run["accuracy"] <= run["accuracy_high"]
        assert run["accuracy"] == pytest.approx(100 * run["correct"] / run["test_images"])
    assert Summary.model_validate_json(json.dumps(content)) == summary


def test_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert write(build(tmp_path / "one")) == write(build(tmp_path / "two"))


def test_table_for_the_command_line_names_generated_data(workspace: Workspace) -> None:
    summary, _ = write(workspace)
    text = io.StringIO()
    Console(file=text, width=80).print(summary_table(summary))
    assert "generated words, not CVSI-2015" in " ".join(text.getvalue().split())
    assert all(run.run in text.getvalue() for run in summary.runs)


def test_generated_data_is_called_generated_and_kept_out_of_the_column(
    workspace: Workspace,
) -> None:
    summary, page = write(workspace)
    assert "Generated words, not CVSI-2015: no number here may stand in a CVSI-2015 column" in page
    part = section(page, "published")
    assert "cannot be compared" in part
    assert "the words of this page are generated" in part
    assert not any(run.run in part for run in summary.runs)
    assert_row_is_empty(part, FILLED_BY)


def test_a_test_set_of_the_official_size_stands_beside_the_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_official(monkeypatch, 6)
    summary, page = write(build(tmp_path, source="cvsi"))
    part = section(page, "published")
    assert "Generated words" not in page
    assert "as many test words of every script as the official test set has, 60 in all" in part
    students = [run for run in summary.runs if run.role == "student"]
    ours = [run for run in students if f'<th scope="row">{run.run}</th>' in part]
    assert len(ours) == 1
    assert f"<td>{ours[0].accuracy:.2f}<span" in part
    assert part.count("<td>") == (len(published.SYSTEMS) + 2) * (1 + len(NAMES))
    assert "empty" not in part
    assert "dvc exp run" not in part


def test_generated_words_never_stand_beside_the_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_official(monkeypatch, 6)
    summary, page = write(build(tmp_path))
    assert_row_is_empty(section(page, "published"), FILLED_BY)
    assert not any(run.run in section(page, "published") for run in summary.runs)


@pytest.mark.parametrize(
    ("scripts", "why", "command"),
    [
        (
            ("Arabic", "Bengali", "English"),
            "of 3 scripts, not of all ten",
            f"{FILLED_BY} -S data.task=4 -S data.scripts=null",
        ),
        (
            NAMES,
            "60, are not those of the official test set, 3,207 (English 6 instead of 341, ",
            FILLED_BY,
        ),
    ],
)
def test_real_words_that_are_not_the_official_test_set_are_not_comparable(
    tmp_path: Path, scripts: tuple[str, ...], why: str, command: str
) -> None:
    summary, page = write(build(tmp_path, source="cvsi", scripts=scripts))
    part = section(page, "published")
    assert why in part
    assert not any(run.run in part for run in summary.runs)
    assert_row_is_empty(part, command)


def test_a_test_set_of_the_official_size_with_other_shares_of_scripts_is_not_comparable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As generated words are whose statement was taken away."""
    make_official(monkeypatch, 6, English=7, Tamil=5)
    _, page = write(build(tmp_path, source="cvsi"))
    assert "60 (English 6 instead of 7, Tamil 6 instead of 5)" in section(page, "published")
    assert_row_is_empty(section(page, "published"), FILLED_BY)


def test_the_command_takes_back_what_would_keep_the_row_empty() -> None:
    chosen = Data.model_validate({"source": "cvsi", "root": "words", "task": "4", "rev": "v1.0"})
    assert published.command(chosen) == f"{FILLED_BY} -S data.rev=null"


def test_published_results_are_the_published_ones() -> None:
    assert sum(row.words for row in published.SCRIPTS) == published.TEST_WORDS
    assert {row.script for row in published.SCRIPTS} == set(NAMES)
    for place, total in enumerate(published.ALL):
        right = sum(row.words * row.accuracies[place] / 100 for row in published.SCRIPTS)
        assert 100 * right / published.TEST_WORDS == pytest.approx(total, abs=0.03)


def test_an_insignificant_difference_is_said_to_be_one(workspace: Workspace) -> None:
    _, page = write(workspace)
    assert "not significant, p = " in page
    assert "Not significantly different (p = " in page


def test_a_significant_difference_names_the_better(tmp_path: Path) -> None:
    gains = {"student-ocr": 99.0, "student-alone": -1.5}
    _, page = write(build(tmp_path, each=20, gains=gains))
    assert "significant, p &lt; 0.001" in page
    assert "student-ocr is more accurate, by " in page


def test_a_further_run_of_another_network_stands_against_no_student(workspace: Workspace) -> None:
    evidence = gather(workspace.params, workspace.reports, workspace.models, workspace.shards)
    firsts = {one.first for one in verdicts(workspace.params, evidence)}
    assert "student-ensemble" in firsts
    ensemble = evidence.runs["student-ensemble"]
    network = evidence.runs["assistant-ocr"].run.network
    other = replace(ensemble, run=ensemble.run.model_copy(update={"network": network}))
    evidence = replace(evidence, runs=evidence.runs | {"student-ensemble": other})
    firsts_then = {one.first for one in verdicts(workspace.params, evidence)}
    assert firsts - firsts_then == {"student-ensemble"}


def test_sentences_never_claim_more_than_the_test() -> None:
    first, second = [True] * 6 + [False], [False] * 6 + [True]
    assert "Not significantly" in sentence("a", "b", compare(first, second))
    assert "No difference" in sentence("a", "b", compare(first, first))
    assert sentence("a", "b", compare(second * 3, first * 3)).startswith("b is more accurate")
    assert p_value(0.0004) == "p < 0.001"
    assert p_value(0.04996) == "p = 0.04996"
    assert p_value(0.0500) == "p = 0.050"


def test_the_student_is_chosen_on_validation(workspace: Workspace) -> None:
    choose(workspace, "student-ensemble")
    _, page = write(workspace)
    assert "The student: student-ensemble" in page


def test_how_sure_every_run_is_is_drawn(workspace: Workspace) -> None:
    _, page = write(workspace)
    assert page.count("error 3.25; 0.75 at temperature 1.50") == len(all_runs(workspace.params))
    # Half of a width of 198 and of a height of 90 pixels: 60 % sure, right in half of the cases.
    assert 'points="152.8,53.0 226.1,12.5"' in page


def test_every_misread_word_is_shown_with_its_picture(workspace: Workspace) -> None:
    _, page = write(workspace)
    chosen = re.search(r"The student: ([\w-]+)", page)
    assert chosen
    _, rows = evaluations.read(workspace.reports / "evaluations" / chosen[1])
    wrong = sorted(
        (row for row in rows if row.predicted != row.script), key=lambda row: -row.probability
    )
    assert wrong
    assert pictured(section(page, "misread")) == [
        (row.key, row.script, row.predicted) for row in wrong
    ]


def test_pairs_that_are_mixed_up_are_shown_with_all_runs_mistakes(workspace: Workspace) -> None:
    runs = [run.name for run in all_runs(workspace.params)]
    folder = workspace.reports / "evaluations"
    for name in runs:
        evaluation, rows = evaluations.read(folder / name)
        say = {"Bengali": "Hindi", "Hindi": "Bengali"} if name != "teacher-ocr" else {}
        if name == "student-alone":
            del say["Hindi"]
        said = [replace(row, predicted=say.get(row.script, row.script)) for row in rows]
        right = sum(row.predicted == row.script for row in said)
        evaluations.write(folder / name, evaluation.model_copy(update={"correct": right}), said)
    choose(workspace, "student-ocr")
    _, page = write(workspace)
    part = section(page, "pairs")
    assert part.count("<article") == 1
    assert re.findall(r"(\w+) read as (\w+): (\d+) of (\d+) words", part) == [
        ("Bengali", "Hindi", "6", "6"),
        ("Hindi", "Bengali", "6", "6"),
    ]
    assert len(pictured(part)) == 12
    mixed = dict(re.findall(r"([\w-]+) <b>(\d+)</b>", part))
    assert mixed == dict.fromkeys(runs, "12") | {"teacher-ocr": "0", "student-alone": "6"}


def test_a_student_without_mistakes_is_told_as_such(tmp_path: Path) -> None:
    names = [run.name for run in all_runs(build(tmp_path / "any").params)]
    gains = dict.fromkeys(names, 99.0)
    _, page = write(build(tmp_path / "perfect", gains=gains))
    assert "reads all 60 test images right" in page
    assert "No difference: both read the same words right" in page
    assert "<article" not in section(page, "pairs")


class Links(HTMLParser):
    """Everything in a page that a browser could fetch, and the tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = ("src", "href", "srcset", "data", "action", "poster", "background")
        self.targets += [value or "" for name, value in attrs if name in names]


def test_page_asks_for_nothing(workspace: Workspace) -> None:
    _, page = write(workspace)
    links = Links()
    links.feed(page)
    assert [target for target in links.targets if not target.startswith(("data:", "#"))] == []
    assert "://" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert "script" not in links.tags
    assert len(page.encode()) < 3_000_000


def test_special_characters_are_escaped(workspace: Workspace) -> None:
    nasty = "<script>alert('1')</script>&\""
    write_audit(workspace, COUNTS, notes=[nasty])
    for run in all_runs(workspace.params):
        edit(workspace.models / run.name / "model.json", code_version=nasty, parameters={nasty: 1})
        folder = workspace.reports / "evaluations" / run.name
        edit(folder / evaluations.METRICS_FILE, model=nasty)
    _, page = write(workspace)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(") > RUNS


def test_audit_is_told_and_its_problems_stand_on_top(workspace: Workspace) -> None:
    problem = {
        "finding": "test_in_train",
        "cases": [{"file": "Testing/HIN_3.jpg", "detail": "= Training/HIN_77.jpg"}],
    }
    write_audit(workspace, COUNTS, problems=[problem], notes=["12 files were left out"])
    _, page = write(workspace)
    top = page[: page.index("<main>")]
    assert "let through by data.allow" in top
    assert "Testing/HIN_3.jpg (= Training/HIN_77.jpg)" in top
    assert "12 files were left out" in page


def test_a_large_image_becomes_a_small_one(tmp_path: Path) -> None:
    _, page = write(build(tmp_path, extra=b"\xff" * 100_000))
    assert len(page) < 1_000_000


@given(st.floats(-1e3, 1e6), st.floats(0, 1e6), st.integers(2, 8))
def test_ticks_hold_what_is_between_them(low: float, span: float, ticks: int) -> None:
    values = figures.nice(low, low + span, ticks)
    slack = 1e-6 * max(abs(low), span, 1)
    assert values[0] <= low + slack
    assert values[-1] >= low + span - slack
    assert len(set(values)) == len(values) >= 2


def test_numbers_are_written_for_people() -> None:
    assert signed(-0.5) == "−0.50"
    assert signed(0.25) == "+0.25"
    assert signed(-0.001) == "0.00"
    assert [size(number) for number in (12, 4_096, 85_200_000)] == ["12 B", "4.1 kB", "85.2 MB"]
    assert [short(number) for number in (0.84, 187_000, 21_300_000)] == [
        "0.84",
        "187k",
        "21.3M",
    ]
    assert heat(0, 0) == 0 < heat(1, 100) < heat(100, 100)
