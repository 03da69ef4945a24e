"""The report: reports/summary.json for programs, reports/index.html for people."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import ValidationError

from pipeline.data.audit import Audit
from pipeline.errors import DataError
from pipeline.files import write_whole
from pipeline.params import Params
from pipeline.reporting.evidence import gather
from pipeline.reporting.page import render
from pipeline.reporting.plots import write_plots
from pipeline.reporting.summary import Summary, summarize, summary_table

__all__ = ["AUDIT_FILE", "PAGE_FILE", "SUMMARY_FILE", "Summary", "summary_table", "write_report"]

SUMMARY_FILE = "summary.json"
PAGE_FILE = "index.html"
AUDIT_FILE = "audit.json"

log = logging.getLogger(__name__)


def write_report(
    params: Params,
    folder: Path = Path("reports"),
    *,
    models: Path = Path("models"),
    shards: Path = Path("data/shards"),
) -> Summary:
    """Writes the summary and the page of every run that the parameters ask for.

    Args:
        params: the runs to report on.
        folder: holds ``evaluations/<run>/`` and ``audit.json``; both files are written to it.
        models: holds ``<run>/model.json`` and ``<run>/history.csv``.
        shards: holds the shards and their ``index.json``.

    Returns:
        What was written to summary.json.

    Raises:
        DataError: something is missing, or was made from other data than the rest; the message
            names it and the command that makes it. Nothing is written then.
    """
    evidence = gather(params, folder, models, shards)
    audit = _read_audit(folder / AUDIT_FILE)
    if audit.source != evidence.index.source or audit.scripts != evidence.index.scripts:
        raise DataError(
            f"{folder / AUDIT_FILE} tells of other data than {shards} holds: "
            "run python -m pipeline shards"
        )
    summary = summarize(evidence.index, [run.evaluation for run in evidence.runs.values()])
    page = render(params, evidence, audit, shards)
    write_whole(folder / SUMMARY_FILE, summary.model_dump_json(indent=2) + "\n")
    write_whole(folder / PAGE_FILE, page)
    write_plots(folder, models, tuple(evidence.runs), evidence.chosen.name)
    log.info("wrote %s and %s", folder / SUMMARY_FILE, folder / PAGE_FILE)
    return summary


def _read_audit(path: Path) -> Audit:
    try:
        return Audit.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path} is missing: run python -m pipeline shards") from None
    except ValidationError as error:
        raise DataError(f"{path} is no audit: {error}: run python -m pipeline shards") from error
