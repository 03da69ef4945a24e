"""python -m benchmarks: measures, prints a table, keeps JSON under benchmarks/results.

Every figure that is compared is a ratio of two things timed in turn on this machine, since its
speed changes from hour to hour. The shards must be there: dvc repro shards.
"""

# ruff: noqa: E402 - the environment is set before PyTorch and Ray are loaded

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from pipeline import environment

environment.set_defaults()

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measures import MEASURES, measure
from pipeline import params
from pipeline.compute import cores
from pipeline.data.shards import read_index
from pipeline.errors import UsageError
from pipeline.train.run import SHARDS

RESULTS = Path("benchmarks/results")


def main() -> None:
    """Runs the benchmarks; each result is kept when it is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="how often a pair is timed")
    only = f"some of {', '.join(MEASURES)}; what is kept of the others stays"
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=MEASURES, help=only)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings = params.load()
    index = read_index(SHARDS)
    path = RESULTS / f"{platform.machine()}-{cores()}-cores.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"measured": {}}
    results["machine"] = _machine()
    RESULTS.mkdir(parents=True, exist_ok=True)
    missed: list[UsageError] = []
    for name in asked.only:
        # A process of its own: Ray keeps the token, or its absence, that it saw first.
        context = multiprocessing.get_context("spawn")
        with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, context) as process:
            arguments = (name, settings, index, Path(folder), asked.pairs)
            try:
                results[name] = process.submit(measure, *arguments).result()
            except UsageError as error:
                # What it is measured beside is none of the requirements.
                missed.append(error)
                continue
        day = time.strftime("%Y-%m-%d")
        results["measured"][name] = {"date": day, "data_version": index.version}
        path.write_text(json.dumps(results, indent=2) + "\n")
    if asked.json:
        print(json.dumps(results))
    else:
        _print(results)
        print(f"kept in {path}")
    for reason in missed:
        print(f"not measured: {reason}", file=sys.stderr)
    raise SystemExit(UsageError.exit_code if missed else 0)


def _machine() -> dict[str, Any]:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "processor": model,
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


ROWS = (
    ("loader over bare loop, images/s", "loader", "ratio", "at least 0.9"),
    ("share of training spent waiting for data", "training", "waiting", "at most 0.05"),
    ("Ray Train job over direct loop, seconds", "training", "ratio", "at most 1.05"),
    ("start-up of a Ray Train job, seconds", "training", "startup_seconds", ""),
    ("two workers over twice one, images/s, teacher", "scaling", "ratio", "at least 0.85"),
    ("two workers, a whole batch each, over twice one", "scaling", "weak", "at least 0.85"),
    ("two trainings apart over twice one, the same", "scaling", "ceiling", ""),
    ("two workers over two trainings apart, the same", "scaling", "exchange", ""),
    ("a job on a running cluster beside its epochs, seconds", "startup", "seconds", ""),
    ("an epoch from S3 over one from disk, images/s, cold", "streaming", "cold", "at least 0.7"),
    ("the same with a full cache", "streaming", "warm", "at least 0.98"),
    ("requests of an epoch to S3, cold", "streaming", "requests_cold", ""),
    ("the same with a full cache", "streaming", "requests_warm", ""),
    ("dvc push over boto3, seconds", "streaming", "push", ""),
    ("dvc pull over boto3, seconds", "streaming", "pull", ""),
    (
        "an epoch from stored targets over one on labels, seconds",
        "targets",
        "over_labels",
        "at most 1.1",
    ),
    ("the same over one that asks the teacher", "targets", "over_live", ""),
    ("bytes of stored targets for a view", "targets", "bytes", ""),
    ("best of ASHA and TPE less random search's, same images, points", "search", "over_random", ""),
    ("the same less the default's", "search", "over_default", ""),
    ("trials an hour, stored over live targets", "search", "stored_over_live", "at least 2"),
    ("share of a search's time that it does not train", "search", "wasted", "at most 0.1"),
    ("words whose script Tesseract tells, %", "tesseract", "tesseract_accuracy", ""),
    ("the same of the seven scripts that it can find", "tesseract", "tesseract_seven", ""),
    ("words whose script the student tells, %", "tesseract", "student_accuracy", ""),
    ("the same of these seven scripts", "tesseract", "student_seven", ""),
    ("milliseconds of a word, Tesseract", "tesseract", "tesseract_milliseconds", ""),
    ("milliseconds of a word, the student", "tesseract", "student_milliseconds", ""),
    (
        "images/s over torchdistill's, live targets, all views new",
        "torchdistill",
        "live_anew",
        "at least 1.2",
    ),
    ("the same, our views from memory", "torchdistill", "live", "at least 1.2"),
    ("the same, both sides' views from memory", "torchdistill", "live_both", ""),
    ("all views new, torchdistill in fp32 as in its examples", "torchdistill", "live_fp32", ""),
    ("stored targets, all views new", "torchdistill", "stored_anew", ""),
    ("the same, our views from memory", "torchdistill", "stored", "at least 2"),
    ("a whole training, live targets, all views new", "torchdistill", "whole_live", "at least 1.2"),
    ("the same, stored targets, the project's views", "torchdistill", "whole_stored", "at least 2"),
    ("the same, the making of targets counted in", "torchdistill", "whole_stored_made", ""),
    ("validation words told, torchdistill, %", "torchdistill", "torchdistill_validation", ""),
    ("the same, live targets", "torchdistill", "live_validation", ""),
    ("the same, stored targets", "torchdistill", "stored_validation", ""),
    ("test words told, torchdistill, %", "torchdistill", "torchdistill_test", ""),
    ("the same, live targets", "torchdistill", "live_test", ""),
    ("the same, stored targets", "torchdistill", "stored_test", ""),
    ("live targets' less torchdistill's, points of test", "torchdistill", "live_less_test", ""),
    ("stored targets' less torchdistill's", "torchdistill", "stored_less_test", ""),
    ("flow over plain dvc repro, all stages, seconds", "flow", "seconds", "at most 15"),
)


def _print(results: dict[str, Any]) -> None:
    table = Table("measure", "median", "least to most", "goal", "on", title="benchmarks")
    means = Table("measure", "mean", "95 % interval", "on", title="over seeds and images")
    for says, name, key, goal in ROWS:
        if name not in results:
            continue
        found = results[name][key]
        day = results["measured"][name]["date"]
        if "mean" in found:
            bounds = f"{found['low']:.3f} to {found['high']:.3f}"
            means.add_row(says, f"{found['mean']:.3f}", bounds, day)
        else:
            range_ = f"{found['least']:.3f} to {found['most']:.3f}"
            table.add_row(says, f"{found['median']:.3f}", range_, goal, day)
    Console().print(table)
    Console().print(means)
    sizes = Table(
        *("model", "parameters", "million MACs"),
        *("PyTorch ms", "ONNX Runtime ms", "in 8 bits ms"),
    )
    for name, row in results.get("sizes", {}).items():
        sizes.add_row(
            name,
            f"{row['parameters']:,}",
            f"{row['macs'] / 1e6:.1f}",
            f"{row['latency_ms']:.3f}",
            f"{row['latency_ms_onnx']:.3f}",
            f"{row['latency_ms_int8']:.3f}",
        )
    Console().print(sizes)


if __name__ == "__main__":
    main()
