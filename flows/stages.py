"""The stages of a DVC project and what each needs, as DVC reads them from dvc.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from networkx import topological_sort

from pipeline.errors import UsageError

DATA = Path("data/shards")
"""What all training starts from."""


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml.

    Attributes:
        name: as ``dvc repro`` takes it, for example ``teacher@ocr``.
        needs: the stages that have to be done before it.
        outs: what it writes, relative to the project.
        metrics: those of its outs that are metrics for DVC.
    """

    name: str
    needs: tuple[str, ...]
    outs: tuple[Path, ...]
    metrics: tuple[Path, ...]


def read_stages(folder: Path) -> tuple[Stage, ...]:
    """Every stage of a project, each after those it needs.

    Raises:
        UsageError: dvc.yaml is refused by DVC.
    """
    try:
        with Repo(str(folder)) as repo:
            graph = repo.index.graph
            # Files that were added to DVC by hand are in its graph too, but nothing runs for them.
            return tuple(
                Stage(
                    name=stage.name,
                    needs=tuple(sorted(one.name for one in graph.successors(stage) if one.cmd)),
                    outs=tuple(Path(out.fs_path).relative_to(folder) for out in stage.outs),
                    metrics=tuple(
                        Path(out.fs_path).relative_to(folder) for out in stage.outs if out.metric
                    ),
                )
                for stage in topological_sort(graph.reverse())
                if stage.cmd
            )
    except DvcException as error:
        raise UsageError(f"{folder}/dvc.yaml cannot be used: {error}") from error


def data_stages(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages up to the one that writes the shards.

    Raises:
        UsageError: no stage writes them.
    """
    wanted = {stage.name for stage in stages if DATA in stage.outs}
    if not wanted:
        raise UsageError(f"no stage of dvc.yaml writes {DATA}")
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(stage.needs)
    return tuple(stage for stage in stages if stage.name in wanted)


def trained_on_other_data(folder: Path, stages: tuple[Stage, ...]) -> bool:
    """Whether DVC finds, for one of these stages, other shards than it was last run with."""
    with Repo(str(folder)) as repo:
        by_name = {stage.name: stage for stage in repo.index.stages if stage.cmd}
        for stage in stages:
            for dep in by_name[stage.name].deps:
                if Path(dep.fs_path) == folder / DATA and dep.status():
                    return True
    return False
