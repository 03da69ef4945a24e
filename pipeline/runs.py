"""The runs that params.yaml asks for: one model each, with the teachers it learns from.

A teacher, an assistant and a student differ only in what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pipeline.errors import UsageError
from pipeline.params import (
    Architecture,
    Augment,
    Distillation,
    Params,
    Section,
    Targets,
    Training,
    View,
)

Role = Literal["teacher", "assistant", "student"]


class Run(Section):
    """Everything that decides the weights of one model, but for the data and the code.

    Attributes:
        name: for example ``student-ocr-assisted``.
        role: what the model is in the chain.
        model: its key in ``models``.
        teachers: run names with their weights, summing to one; empty where it learns from labels
            alone.
        distillation: null exactly where ``teachers`` is empty.
        targets: where the teachers' logits come from; null where ``teachers`` is empty.
        shuffle_shards: shards whose images are mixed with each other, which decides their order.
    """

    name: str
    role: Role
    model: str
    network: Architecture
    teachers: dict[str, float]
    view: View
    training: Training
    distillation: Distillation | None
    targets: Targets | None
    shuffle_shards: int
    seed: int


def all_runs(params: Params) -> tuple[Run, ...]:
    """Every run of params.yaml, each after its teachers: every teacher's four, then the others.

    Raises:
        UsageError: a further run has a name that is taken, or a teacher that is no run before it;
            or ``search.settings`` are refused.
    """
    chain = params.distillation
    runs: list[Run] = []
    for teacher in params.teachers:
        top, middle = f"teacher-{teacher}", f"assistant-{teacher}"
        student = f"student-{teacher}"
        runs += [
            _run(params, top, "teacher", teacher),
            _run(params, middle, "assistant", "assistant", {top: 1.0}, chain.assistant),
            _run(params, student, "student", "student", {top: 1.0}, chain.student),
            _run(params, f"{student}-assisted", "student", "student", {middle: 1.0}, chain.student),
        ]
    runs.append(_run(params, "student-alone", "student", "student"))
    runs = [_as_found(run, params.search.settings) for run in runs]
    for name, row in params.runs.items():
        known = {run.name for run in runs}
        if name in known:
            raise UsageError(f"runs.{name}: the matrix has a run of that name; choose another")
        if unknown := sorted(set(row.teachers) - known):
            raise UsageError(
                f"runs.{name}.teachers: no run {', '.join(unknown)} before it; "
                f"known are {', '.join(sorted(known))}"
            )
        role: Role = "assistant" if row.model == "assistant" else "student"
        runs.append(_run(params, name, role, row.model, row.teachers, row.distillation))
    return tuple(runs)


def find(params: Params, name: str) -> Run:
    """The run of that name.

    Raises:
        UsageError: params.yaml asks for no such run.
    """
    runs = {run.name: run for run in all_runs(params)}
    if name not in runs:
        raise UsageError(f"no run {name!r} in params.yaml; there are {', '.join(runs)}")
    return runs[name]


def _run(
    params: Params,
    name: str,
    role: Role,
    model: str,
    teachers: dict[str, float] | None = None,
    distillation: Distillation | None = None,
) -> Run:
    return Run(
        name=name,
        role=role,
        model=model,
        network=params.models[model].network,
        teachers=shares(teachers or {}),
        view=params.view,
        training=params.training_of(model),
        distillation=distillation,
        targets=params.distillation.targets if teachers else None,
        shuffle_shards=params.data.shuffle_shards,
        seed=params.seed,
    )


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights of teachers, summing to one."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def vary(run: Run, values: Mapping[str, Any]) -> Run:
    """A student's run with other settings.

    Args:
        run: as params.yaml has it.
        values: by names of :data:`pipeline.search.settings.OF_A_RUN`: ``training.<key>``;
            ``distillation.<key>``, which a run without teachers does without; ``width``, which
            multiplies its channels; ``augmentation``, which multiplies how far its views differ
            from their images, probabilities up to 1.

    Raises:
        ValueError: a value is refused as params.yaml would refuse it, or the network has no
            channels to multiply.
    """
    content = run.model_dump()
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        if key == "width":
            if "channels" not in content["network"]:
                raise ValueError(f"width: a network {run.network.architecture} has no channels")
            channels = content["network"]["channels"]
            content["network"]["channels"] = [max(1, round(value * one)) for one in channels]
        elif key == "augmentation":
            content["view"]["augment"] = stronger(run.view.augment, value).model_dump()
        elif section == "training" or run.distillation is not None:
            content[section][name] = value
    return Run.model_validate(content)


def stronger(augment: Augment, factor: float) -> Augment:
    """Views that differ from their images by so many times as much.

    Raises:
        ValueError: that is farther than they may.
    """
    chances = {"blur", "noise", "jpeg", "shrink", "stroke", "occlude"}
    return Augment.model_validate(
        {
            name: min(1.0, value * factor) if name in chances else value * factor
            for name, value in augment.model_dump().items()
        }
    )


def _as_found(run: Run, settings: Mapping[str, Any]) -> Run:
    """A run of the matrix with what a search found for students."""
    if run.role != "student" or not settings:
        return run
    try:
        return vary(run, settings)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"the settings found by a search do not fit {run.name}: {error}"
        ) from error
