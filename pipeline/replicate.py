"""Trains students again with other seeds, and judges them: how much of a result was luck."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from pipeline.changes import Change, with_changes
from pipeline.compute import Compute, cores
from pipeline.data.shards import Index, read_index
from pipeline.errors import TransientError, UsageError
from pipeline.evaluate import Asked, ask_about_folder, ask_about_test
from pipeline.evaluation import JudgedData
from pipeline.files import folder_there
from pipeline.inference import answer, load_as_they_are, view_of
from pipeline.lock import hold
from pipeline.models.build import describe
from pipeline.models.folder import load_model
from pipeline.onnx_model import onnx_asker, to_int8, to_onnx
from pipeline.params import Params
from pipeline.progress import Progress
from pipeline.replicated import Replicated, Right, judged
from pipeline.runs import Run, all_runs, find
from pipeline.train.fingerprint import code_version, run_fingerprint
from pipeline.train.run import check_teachers, train_run
from pipeline.train.targets import see_to_targets

log = logging.getLogger(__name__)

_KEPT: Final = "replicate"


@dataclass(frozen=True)
class _Training:
    """One student with one seed: what a process is handed.

    Attributes:
        params: with that seed.
        run: the student.
        base: the student that it differs from in one setting; null where it is as in params.yaml.
        compute: in this process.
        models: a folder for the student, in which its teachers are too.
        targets: stored, of the views of the seed.
    """

    params: Params
    run: str
    base: str | None
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
        return right.model_copy(update={"in_8_bits": True})


@dataclass(frozen=True)
class _Place:
    """Where students are trained again, and what of.

    Attributes:
        compute: what one training takes of this machine.
        kept: the folder that keeps them and their targets.
        shards: the folder of shards.
        index: of these.
        models: the folder of teachers and assistants.
    """

    compute: Compute
    kept: Path
    shards: Path
    index: Index
    models: Path

    def prepare(self, params: Params, name: str, base: str | None) -> _Training:
        """Sees to a folder with a student's teachers, and to their answers to its seed's views."""
        run, version = find(params, name), self.index.version
        what = f"{params.view.model_dump_json()} {params.seed} {version} {code_version()}"
        digest = hashlib.sha256(what.encode()).hexdigest()[:12]
        targets = self.kept / f"targets-{params.seed}-{digest}"
        folder = self.kept / f"{name}-{run_fingerprint(run, version, self.models)}"
        folder.mkdir(parents=True, exist_ok=True)
        there = folder_there(folder / name)
        for teacher in run.teachers:
            link, model = folder / teacher, (self.models / teacher).resolve()
            if link.is_symlink() and link.readlink() != model:
                link.unlink()
            if not link.is_symlink():
                link.symlink_to(model, target_is_directory=True)
            if run.targets == "stored" and not there:
                see_to_targets(
                    params,
                    teacher,
                    self.compute,
                    shards=self.shards,
                    models=self.models,
                    targets=targets,
                )
        threads = max(1, int(self.compute.trial_cpus))
        here = self.compute.model_copy(update={"workers": 0, "loaders": 0, "threads": threads})
        return _Training(params, name, base, here, folder, targets)


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
    changes: Sequence[Change] = (),
) -> Replicated:
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
        changes: of every student there is one more for each, with this setting changed.

    Raises:
        UsageError: a run is none, or no student; a change is refused; the seeds are too few, or one
            comes twice; or another process is at such trainings.
        DataError: something is missing or damaged.
        TrainingError: a training cannot go on.
        TransientError: the process of one was ended.
    """
    if len(seeds) < 2 or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        given = ", ".join(map(str, seeds))
        raise UsageError(f"seeds {given}: give two or more, all different, none below zero")
    if params.search.used != "none":
        raise UsageError(
            "search.used is best, and students are trained again as params.yaml has them alone: "
            "write what was found there, and set search.used to none"
        )
    students = _students(params, names)
    params, changed = with_changes(params, students, changes)
    students += [one.run for one in changed]
    bases = {one.run.name: one.base for one in changed}
    for run in students:
        check_teachers(run, models)
    others = tuple(dict.fromkeys(path.resolve() for path in others))
    index, sets = read_index(shards), _Sets(shards.resolve(), others)
    kept = compute.local_storage / _KEPT
    # Nothing is streamed or kept elsewhere: all models are judged on the shards that are here.
    compute = compute.model_copy(update={"stream": None, "storage": str(kept)})
    place = _Place(compute, kept, shards, index, models)
    with hold(kept / "lock", "such trainings"):
        # A folder that cannot be read is told of now, and not after an hour.
        found = [right for name in _above(params, students) for right in sets.judge(models / name)]
        _warn_of_other_code(found)
        trainings = [
            place.prepare(seeded, run.name, bases.get(run.name))
            for seeded in (params.model_copy(update={"seed": seed}) for seed in seeds)
            for run in students
        ]
        found += _trained(trainings, sets, compute)
    return Replicated(
        title=title,
        source=index.source,
        version=index.version,
        training_images=index.images("train"),
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


def _warn_of_other_code(found: Sequence[Right]) -> None:
    """Tells of teachers and assistants that are not what training now would make."""
    for name in {right.run: None for right in found if right.code_version != code_version()}:
        log.warning(
            "%s was trained by other code than this; where that matters, run dvc repro first", name
        )


def _above(params: Params, students: Sequence[Run]) -> list[str]:
    """The teachers of some students, and theirs, in the order of the chain."""
    above = {name for run in students for name in run.teachers}
    runs = all_runs(params)
    for run in reversed(runs):
        if run.name in above:
            above |= set(run.teachers)
    return [run.name for run in runs if run.name in above]


def _trained(trainings: Sequence[_Training], sets: _Sets, compute: Compute) -> list[Right]:
    at_once = max(1, int(cores() / compute.trial_cpus))
    if torch.cuda.is_available() and compute.gpu is not False:
        # All take the first GPU.
        at_once = min(at_once, max(1, int(1 / compute.trial_gpus)))
    log.info("%d trainings, %d at once", len(trainings), at_once)
    progress = Progress("replicate", "trainings")
    pool = ProcessPoolExecutor(
        min(at_once, len(trainings)),
        multiprocessing.get_context("spawn"),
        _set_up,
        (compute.gpu is not False,),
    )
    futures = [pool.submit(_train_and_judge, training, sets) for training in trainings]
    try:
        for done, future in enumerate(as_completed(futures), 1):
            test = future.result()[0]
            right = 100 * sum(test.right) / len(test.right)
            log.info("%s with seed %d: %.2f %% of the test images", test.run, test.seed, right)
            progress(done, len(futures))
    except BrokenProcessPool:
        raise TransientError(
            "a training was ended from outside, perhaps for want of memory: run the same command "
            "again, with more for each by DISTILL_TRIAL_CPUS, which makes fewer at once"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
    return [right for future in futures for right in future.result()]


def _set_up(gpu: bool) -> None:
    """Makes a process ready: it leaves GPUs alone if it shall, and ends with the one it works for.

    One that went on would train beside those of the next command, in the same folders.
    """
    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


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
    judged = [*sets.judge(model), sets.judge_in_8_bits(model)]
    return [one.model_copy(update={"changed_from": training.base}) for one in judged]


def _right(asked: Asked) -> Right:
    info = asked.info
    return Right(
        run=info.run,
        role=info.role,
        model=describe(info.network),
        teachers=tuple(info.teachers),
        parameters=sum(weight.numel() for weight in asked.model.parameters()),
        settings={name: value for name, value in info.parameters.items() if name != "seed"},
        code_version=info.code_version,
        seed=info.parameters["seed"],
        validation_accuracy=info.metrics["validation_accuracy"],
        data=asked.data,
        right=tuple(asked.answers.right.tolist()),
    )
