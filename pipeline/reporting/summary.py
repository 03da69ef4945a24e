"""The summary that programs read: reports/summary.json, and its table on the command line."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from rich import box
from rich.table import Table

from pipeline.data.shards import Index
from pipeline.evaluation import Evaluation
from pipeline.reporting.templating import short


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Images(_Record):
    """How many images each split has."""

    train: int
    validation: int
    test: int


class SummaryData(_Record):
    """The images all runs were trained and judged on.

    Attributes:
        source: ``generated`` or ``cvsi``.
        version: the data's version, a SHA-256.
    """

    source: str
    scripts: tuple[str, ...]
    images: Images
    version: str


class SummaryRun(_Record):
    """One run; accuracies in percent with the Wilson 95 % interval, latency on one CPU thread."""

    run: str
    role: str
    model: str
    teachers: tuple[str, ...]
    parameters: int
    seeds: tuple[int, ...]
    test_images: int
    correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    latency_ms: float


class Summary(_Record):
    """All of reports/summary.json."""

    data: SummaryData
    runs: tuple[SummaryRun, ...]


def summarize(index: Index, evaluations: list[Evaluation]) -> Summary:
    """The summary of these evaluations, in their order."""
    images = {split: index.images(split) for split in Images.model_fields}
    return Summary(
        data=SummaryData(
            source=index.source,
            scripts=index.scripts,
            images=Images(**images),
            version=index.version,
        ),
        runs=tuple(_row(evaluation) for evaluation in evaluations),
    )


def summary_table(summary: Summary) -> Table:
    """The summary as a table for the command line; generated data is named in its title."""
    generated = summary.data.source == "generated"
    images = "generated words, not CVSI-2015" if generated else "words"
    table = Table(
        title=f"{summary.data.images.test:,} test images ({images})",
        caption="F1: mean over the scripts; size: parameters; ms: one image on one CPU thread",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("run", no_wrap=True)
    for name in ("accuracy %", "95 % interval", "F1 %", "size", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in summary.runs:
        table.add_row(
            run.run,
            f"{run.accuracy:.2f}",
            f"{run.accuracy_low:.2f}–{run.accuracy_high:.2f}",
            f"{run.macro_f1:.2f}",
            short(run.parameters),
            f"{run.latency_ms:.2f}",
        )
    return table


def _row(evaluation: Evaluation) -> SummaryRun:
    return SummaryRun(
        run=evaluation.run,
        role=evaluation.role,
        model=evaluation.model,
        teachers=evaluation.teachers,
        parameters=evaluation.parameters,
        seeds=evaluation.seeds,
        test_images=evaluation.images,
        correct=evaluation.correct,
        accuracy=evaluation.accuracy,
        accuracy_low=evaluation.accuracy_low,
        accuracy_high=evaluation.accuracy_high,
        macro_f1=evaluation.macro_f1,
        latency_ms=evaluation.latency_ms,
    )
