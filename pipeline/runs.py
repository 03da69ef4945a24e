"""The runs that params.yaml asks for: one model each, with the teachers it learns from.

A teacher, an assistant and a student differ only in what stands here.
"""

from __future__ import annotations

from typing import Literal

from pipeline.errors import UsageError
from pipeline.params import Architecture, Distillation, Params, Section, Targets, Training, View

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
        UsageError: a further run has a name that is taken, or a teacher that is no run before it.
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
    total = sum((teachers or {}).values())
    return Run(
        name=name,
        role=role,
        model=model,
        network=params.models[model].network,
        teachers={key: weight / total for key, weight in (teachers or {}).items()},
        view=params.view,
        training=params.training_of(model),
        distillation=distillation,
        targets=params.distillation.targets if teachers else None,
        shuffle_shards=params.data.shuffle_shards,
        seed=params.seed,
    )
