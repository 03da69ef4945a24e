"""What can be measured, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.flow import flow_overhead
from benchmarks.loading import loader_ratio
from benchmarks.scaling import scaling_efficiency
from benchmarks.search import search_figures
from benchmarks.sizes import compare_sizes
from benchmarks.startup import startup_seconds
from benchmarks.streaming import streaming_ratios
from benchmarks.targets import target_ratios
from benchmarks.tesseract import beside_tesseract
from benchmarks.torchdistill import beside_torchdistill
from benchmarks.training import ray_ratio
from pipeline.data.shards import Index
from pipeline.params import Params

MEASURES: Final = (
    *("loader", "training", "scaling", "startup", "streaming", "sizes", "flow", "targets"),
    *("search", "tesseract", "torchdistill"),
)


def measure(name: str, settings: Params, index: Index, folder: Path, pairs: int) -> Any:
    """Measures one of :data:`MEASURES`, in this process.

    Args:
        name: which.
        settings: of the models that are timed.
        index: of the project's shards.
        folder: an empty one, for what is written meanwhile.
        pairs: how often what is compared is timed in turn.

    Returns:
        What is kept in the file of results, under that name.
    """
    measures: dict[str, Callable[[], Any]] = {
        "loader": lambda: loader_ratio(settings, index, pairs),
        "training": lambda: ray_ratio(settings, folder, pairs),
        "scaling": lambda: scaling_efficiency(settings, folder, pairs),
        "startup": lambda: {"seconds": startup_seconds(settings, folder, pairs)},
        "streaming": lambda: streaming_ratios(settings, index, folder, pairs),
        "sizes": lambda: compare_sizes(settings),
        "flow": lambda: {"seconds": flow_overhead(pairs)},
        "targets": lambda: target_ratios(settings, folder, pairs),
        "search": lambda: search_figures(settings, folder, pairs),
        "tesseract": lambda: beside_tesseract(settings, index),
        "torchdistill": lambda: beside_torchdistill(settings, index, folder, pairs),
    }
    return measures[name]()
