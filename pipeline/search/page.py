"""The page of a search, for people: what its template is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.reporting.templating import fill
from pipeline.search.best import Best
from pipeline.search.journal import Tried
from pipeline.search.settings import WIDTH, Search, Value


def page_of(search: Search, best: Best, trials: Sequence[Tried]) -> str:
    """The whole page, with every style and picture inside."""
    tried = [trial for trial in trials if trial.role == "search"]
    judged = [trial for trial in tried if trial.judged]
    drawn: dict[str, Any] = dict.fromkeys(("parallel", "importance", "budget", "pareto"))
    if judged:
        # It comes with Optuna and Ray, which take seconds to import.
        from pipeline.search import pictures  # noqa: PLC0415

        drawn = {
            "parallel": pictures.parallel(search.space, judged),
            "importance": pictures.importance(search, judged),
            "budget": pictures.best_so_far(tried),
            # Of one network latencies differ by chance alone.
            "pareto": pictures.pareto(judged) if WIDTH in search.space else None,
        }
    return fill(
        "search.html.j2",
        search=search,
        best=best,
        setting=said(best.settings),
        trials=[
            (one, f"{one.accuracy:.2f}" if one.judged else "", said(one.values)) for one in tried
        ],
        images=sum(int(one.metrics["images"]) for trial in tried for one in trial.epochs.values()),
        **drawn,
    )


def said(values: Mapping[str, Value]) -> str:
    """A setting in one line."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
