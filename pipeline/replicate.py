"""Trains students again with other seeds, and judges them: how much of a result was luck."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from pipeline.compute import Compute, cores
from pipeline.data.shards import read_index
from pipeline.errors import UsageError
from pipeline.evaluate import Asked, ask_about_folder, ask_about_test
from pipeline.evaluation import JudgedData
from pipeline.files import folder_there
from pipeline.inference import answer, load_as_they_are, view_of
from pipeline.models.build import describe
from pipeline.models.folder import load_model
from pipeline.onnx_model import onnx_asker, to_int8, to_onnx
from pipeline.params import FurtherRun, Params
from pipeline.progress import Progress
from pipeline.replication import IN_8_BITS, Replication, Right, judged
from pipeline.runs import Run, all_runs, find, vary
from pipeline.train.fingerprint import code_version, run_fingerprint
from pipeline.train.run import check_teachers, train_run
from pipeline.train.targets import PARTS, see_to_targets

log = logging.getLogger(__name__)

_KEPT: Final = "replicate"


@dataclass(frozen=True)
class _Training:
    """One student with one seed: what a process is handed.

    Attributes:
        params: with that seed.
        run: the student.
        compute: in this process.
        models: a folder for the student, in which its teachers are too.
        targets: stored, of the views of the seed.
    """

    params: Params
    run: str
    compute: Compute
    models: Path
    targets: Path


@dataclass(frozen=True)
class _Sets:
    """The images that all models are judged on: the test split, then others."""

    shards: Path
    others: tuple[Path, ...]

    def judge(self, model: Path) -> list[Right]:
        """What a model reads right of each."""
        return [
            _right(ask_about_test(model, self.shards)),
            *(_right(ask_about_folder(model, other)) for other in self.others),
        ]

    def judge_in_8_bits(self, model: Path) -> Right:
        """What a model reads right of the test split in 8 bits, as it is exported."""
        trained, info = load_model(model)
        index = read_index(self.shards)
        validation, test = (
            load_as_they_are(self.shards, index, split, view_of(info))
            for split in ("validation", "test")
        )
        content = to_onnx(trained, info).SerializeToString(deterministic=True)
        smaller = to_int8(content, (batch.images.float() for batch in validation))
        data = JudgedData(source=index.source, split="test", version=index.version)
        answers = answer(onnx_asker(smaller, threads=1), test)
        right = _right(Asked(model, trained, info, answers, data))
        return right.model_copy(update={"run": info.run + IN_8_BITS})


def replicate(
    params: Params,
    names: Sequence[str],
    seeds: Sequence[int],
    compute: Compute,
    *,
    title: str,
    shards: Path,
    models: Path,
    others: Sequence[Path] = (),
    widths: Sequence[float] = (),
) -> Replication:
    """Trains students with every seed, judges them on the test split once, and compares them.

    They are judged in 8 bits too, as exported.

    A seed decides weights, order, views and dropout. Teachers and assistants stay as they are in
    ``models``, and are asked anew about the views of every seed. What was interrupted goes on, and
    what was trained before, with the same parameters, data and code, is not trained again.

    Args:
        params: of the runs.
        names: the students; all of params.yaml where there are none.
        seeds: two at least.
        compute: where checkpoints are kept, and what one training takes of this machine
            (``trial_cpus``, ``trial_gpus``).
        title: what people call it.
        shards: the folder of shards.
        models: the folder of model folders.
        others: folders or archives of labelled images that they are judged on as well.
        widths: of every taught student there is one more for each, with so many times its channels.

    Raises:
        UsageError: a run is none, or no student, or has no channels to multiply; or the seeds are
            too few, or one comes twice.
        DataError: something is missing or damaged.
        TrainingError: a training cannot go on.
    """
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds {', '.join(map(str, seeds))}: give two different ones at least")
    students = _students(params, names)
    for factor in widths:
        params, wider = _of_width(params, students, factor)
        students += wider
    for run in students:
        check_teachers(run, models)
    index, sets = read_index(shards), _Sets(shards.resolve(), tuple(map(Path.resolve, others)))
    # A folder that cannot be read is told of now, and not after an hour.
    found = [right for name in _above(params, students) for right in sets.judge(models / name)]
    top = PARTS if compute.remote_storage else Path(compute.absolute_storage)
    trainings = [
        _prepared(params, run, seed, compute, top.resolve() / _KEPT, shards, models)
        for seed in seeds
        for run in students
    ]
    found += _trained(trainings, sets, compute)
    return Replication(
        title=title,
        code_version=code_version(),
        data_version=index.version,
        training_images=index.images("train"),
        epochs=students[0].training.epochs,
        seeds=tuple(seeds),
        judged=tuple(
            judged([right for right in found if right.data == data])
            for data in dict.fromkeys(right.data for right in found)
        ),
    )


def _students(params: Params, names: Sequence[str]) -> list[Run]:
    if not names:
        return [run for run in all_runs(params) if run.role == "student"]
    runs = [find(params, name) for name in dict.fromkeys(names)]
    if wrong := [run.name for run in runs if run.role != "student"]:
        raise UsageError(f"{', '.join(wrong)}: only students are trained again; leave it out")
    return runs


def _of_width(params: Params, students: Sequence[Run], factor: float) -> tuple[Params, list[Run]]:
    """Adds the taught students again with so many times their channels, as runs of their own."""
    models, runs = dict(params.models), dict(params.runs)
    added = []
    for run in students:
        if run.distillation is None or run.name in params.runs:
            continue
        try:
            network = vary(run, {"width": factor}).network
        except ValueError as error:
            raise UsageError(f"--width {factor:g}: {error}") from None
        name = f"{run.name}-x{factor:g}".replace(".", "-")
        model = f"{run.model}-x{factor:g}".replace(".", "-")
        models[model] = params.models[run.model].model_copy(update={"network": network})
        runs[name] = FurtherRun(model=model, teachers=run.teachers, distillation=run.distillation)
        added.append(name)
    params = params.model_copy(update={"models": models, "runs": runs})
    return params, [find(params, name) for name in added]


def _above(params: Params, students: Sequence[Run]) -> list[str]:
    """The teachers of some students, and theirs, in the order of the chain."""
    above = {name for run in students for name in run.teachers}
    runs = all_runs(params)
    for run in reversed(runs):
        if run.name in above:
            above |= set(run.teachers)
    return [run.name for run in runs if run.name in above]


def _prepared(
    params: Params, run: Run, seed: int, compute: Compute, kept: Path, shards: Path, models: Path
) -> _Training:
    """Sees to the stored targets of a seed's views, and to a folder with the student's teachers."""
    params = params.model_copy(update={"seed": seed})
    run = find(params, run.name)
    targets = kept / f"targets-{seed}"
    folder = kept / f"{run.name}-{run_fingerprint(run, read_index(shards).version, models)}"
    folder.mkdir(parents=True, exist_ok=True)
    for teacher in run.teachers:
        if run.targets == "stored":
            see_to_targets(params, teacher, compute, shards=shards, models=models, targets=targets)
        if not (folder / teacher).exists():
            (folder / teacher).symlink_to((models / teacher).resolve(), target_is_directory=True)
    threads = max(1, int(compute.trial_cpus))
    here = compute.model_copy(update={"workers": 0, "loaders": 0, "threads": threads})
    return _Training(params, run.name, here, folder, targets)


def _trained(trainings: Sequence[_Training], sets: _Sets, compute: Compute) -> list[Right]:
    at_once = max(1, int(cores() / compute.trial_cpus))
    if torch.cuda.is_available() and compute.gpu is not False:
        at_once = min(at_once, max(1, int(torch.cuda.device_count() / compute.trial_gpus)))
    log.info("%d trainings, %d at once", len(trainings), at_once)
    progress = Progress("replicate", "trainings")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(at_once, len(trainings)), context) as pool:
        futures = [pool.submit(_train_and_judge, training, sets) for training in trainings]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                test = future.result()[0]
                right = 100 * sum(test.right) / len(test.right)
                log.info("%s with seed %d: %.2f %% of the test images", test.run, test.seed, right)
                progress(done, len(futures))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [right for future in futures for right in future.result()]


def _train_and_judge(training: _Training, sets: _Sets) -> list[Right]:
    model = training.models / training.run
    if not folder_there(model):
        train_run(
            training.params,
            training.run,
            training.compute,
            shards=sets.shards,
            models=training.models,
            targets=training.targets,
        )
    return [*sets.judge(model), sets.judge_in_8_bits(model)]


def _right(asked: Asked) -> Right:
    said, info = asked.answers.logits.argmax(dim=1), asked.info
    return Right(
        run=info.run,
        role=info.role,
        model=describe(info.network),
        teachers=tuple(info.teachers),
        seed=info.parameters["seed"],
        parameters=sum(weight.numel() for weight in asked.model.parameters()),
        validation_accuracy=info.metrics["validation_accuracy"],
        data=asked.data,
        right=tuple((said == asked.answers.labels).tolist()),
    )
