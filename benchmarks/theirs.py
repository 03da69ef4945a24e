"""A student taught by torchdistill, as its example of image classification does it.

It imports torchdistill, which is none of the project's requirements: benchmarks/torchdistill.py
imports this where that is there.
"""

from __future__ import annotations

import multiprocessing
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler
from torchdistill.common.main_util import set_seed
from torchdistill.core.distillation import get_distillation_box
from torchdistill.core.interfaces.registry import register_forward_proc_func
from torchdistill.misc.log import MetricLogger, SmoothedValue
from torchdistill.optim.registry import register_optimizer
from torchvision.datasets import ImageFolder

from benchmarks.taught import Taught, judge
from pipeline.data.augment import Augmenter
from pipeline.data.shards import read_index
from pipeline.data.view import decode, fit
from pipeline.models.build import ScriptClassifier, build
from pipeline.params import View
from pipeline.runs import Run
from pipeline.train.device import autocast_dtype, default_device
from pipeline.train.job import Job
from pipeline.train.optimize import learning_rate, make_optimizer, set_rate
from pipeline.train.setup import VALIDATION_BATCH, load_teacher

_FORWARD: Final = "forward_in_precision"
_OPTIMIZER: Final = "optimizer_of_the_project"
_LOG_STEPS: Final = 100


class Words(ImageFolder):  # type: ignore[misc]
    """One split of a folder of images, in views that are those of the project.

    Args:
        folder: of the split, with a folder for each script.
        scripts: in the order of the logits.
        view: what is shown of an image; with a ``cycle`` views are remembered, so the images must
            then be loaded in one process.
        seed: of the augmentation; None shows the image as it is.
    """

    def __init__(self, folder: Path, scripts: tuple[str, ...], view: View, seed: int | None):
        self._scripts = scripts
        super().__init__(str(folder), allow_empty=True)
        self._view = view
        self._augmenter = None if seed is None else Augmenter(view.augment, seed)
        # In shared memory, for loader processes live longer than an epoch.
        self._epoch = multiprocessing.Value("q")
        self._memory: dict[tuple[int, int], Tensor] = {}

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Gives the scripts the places they have in the logits."""
        return list(self._scripts), {script: at for at, script in enumerate(self._scripts)}

    def begin(self, epoch: int) -> None:
        """Shows the views of an epoch from now on."""
        self._epoch.value = epoch

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.samples[index]
        number = self._view.number(self._epoch.value)
        image = self._memory.get((number, index))
        if image is None:
            image = self._make(Path(path), number)
            if self._view.cycle:
                self._memory[number, index] = image
        return image, label

    def _make(self, path: Path, number: int) -> Tensor:
        grey = fit(decode(path.read_bytes(), str(path)), self._view)
        if self._augmenter is not None:
            grey = self._augmenter(grey, path.stem, number)
        return torch.from_numpy(grey[None])


def by_torchdistill(job: Job, images: Path, folder: Path) -> Taught:
    """Trains the student of a job by torchdistill's distillation box.

    Args:
        job: as our own loop would take it, of a student with one teacher.
        images: the same images as the job's shards, in a folder for each split and script.
        folder: to be made, for the best weights.
    """
    folder.mkdir(parents=True)
    run, device = job.run, default_device()
    torch.set_num_threads(job.threads)
    index = read_index(job.shards)
    teacher = load_teacher(job, next(iter(run.teachers)), index)
    set_seed(run.seed)
    student = build(run.network, len(index.scripts), run.view)
    # The teacher comes in evaluation mode, in which nothing of torchdistill would put it.
    models = [
        model.to(device).to(memory_format=torch.channels_last) for model in (teacher, student)
    ]
    words = {
        split: Words(images / split, index.scripts, run.view, seed)
        for split, seed in (("train", run.seed), ("validation", None))
    }
    steps = -(-len(words["train"]) // run.training.batch_size) * run.training.epochs
    _register(run, device)
    box = get_distillation_box(
        *models, words, _config(job, steps, device), device, None, False, lr_factor=1
    )
    rates, best, began = [], -1, time.perf_counter()
    for epoch in range(box.num_epochs):
        words["train"].begin(epoch)
        box.pre_epoch_process(epoch=epoch)
        asked = time.perf_counter()
        _train_one_epoch(box, device, epoch)
        right = _right(box.student_forward_proc, student, box.val_data_loader, device)
        rates.append(len(words["train"]) / (time.perf_counter() - asked))
        if right > best:
            best = right
            state = {name: value.contiguous() for name, value in student.state_dict().items()}
            save_file(state, folder / "best.safetensors")
        box.post_epoch_process()
    seconds = time.perf_counter() - began
    student.load_state_dict(load_file(folder / "best.safetensors"))
    return Taught(rates, seconds, judge(student, job))


def _register(run: Run, device: torch.device) -> None:
    """Makes known what the configuration names and torchdistill does not bring."""
    dtype = autocast_dtype(run.training.precision, device)

    def forward(model: nn.Module, images: Tensor, *_: Any, **__: Any) -> Tensor:
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            logits: Tensor = model(images)
        # The loss is computed in full precision, as ours is.
        return logits.float()

    def optimizer(students: nn.ModuleList) -> torch.optim.Optimizer:
        student = students[0]
        assert isinstance(student, ScriptClassifier)
        made = make_optimizer(run.training, student, student.pretrained)
        set_rate(made, run.training.lr)
        return made

    register_forward_proc_func(forward, key=_FORWARD)
    register_optimizer(optimizer, key=_OPTIMIZER)


def _config(job: Job, steps: int, device: torch.device) -> dict[str, Any]:
    """What torchdistill's examples have in YAML, with the recipe of the job's run."""
    training, distillation = job.run.training, job.run.distillation
    assert distillation is not None
    # Remembered views lie in the process that made them.
    workers = 0 if job.run.view.cycle else job.loaders
    pinned = device.type == "cuda"
    rate = partial(_share_of_rate, job.run, steps)
    loss = {
        "student_module_path": ".",
        "student_module_io": "output",
        "teacher_module_path": ".",
        "teacher_module_io": "output",
        "temperature": distillation.temperature,
        "alpha": 1 - distillation.weight,
        "beta": distillation.weight,
        "reduction": "batchmean",
        "label_smoothing": training.label_smoothing,
    }
    return {
        "num_epochs": training.epochs,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": {
                "batch_size": training.batch_size,
                "num_workers": workers,
                "pin_memory": pinned,
                # Its examples start the processes anew every epoch, which costs them time.
                "persistent_workers": workers > 0,
                "worker_init_fn": _one_thread,
            },
        },
        "val_data_loader": {
            "dataset_id": "validation",
            "sampler": {"class_or_func": SequentialSampler},
            "kwargs": {"batch_size": VALIDATION_BATCH, "pin_memory": pinned},
        },
        "teacher": {"forward_proc": _FORWARD, "requires_grad": False},
        "student": {"forward_proc": _FORWARD, "requires_grad": True},
        "optimizer": {
            "key": _OPTIMIZER,
            "filters_params": False,
            "kwargs": {},
            "max_grad_norm": training.clip_norm or None,
        },
        "scheduler": {"key": "LambdaLR", "kwargs": {"lr_lambda": rate}, "scheduling_step": 1},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": loss}, "weight": 1.0}}
            },
        },
    }


def _share_of_rate(run: Run, steps: int, step: int) -> float:
    return learning_rate(run.training, step, steps) / run.training.lr


def _train_one_epoch(box: Any, device: torch.device, epoch: int) -> None:
    logger = MetricLogger(delimiter="  ")
    logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
    logger.add_meter("img/s", SmoothedValue(window_size=10, fmt="{value}"))
    batches = logger.log_every(box.train_data_loader, _LOG_STEPS, f"Epoch: [{epoch}]")
    for batch, labels, more in batches:
        began = time.time()
        # Bytes came from the loader: floats would be four times as many to hand over.
        images, targets = batch.to(device, torch.float32), labels.to(device)
        loss = box.forward_process(images, targets, more)
        box.post_forward_process(loss=loss)
        logger.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
        logger.meters["img/s"].update(len(images) / (time.time() - began))


@torch.inference_mode()
def _right(forward: Any, student: nn.Module, batches: DataLoader[Any], device: torch.device) -> int:
    """Validation images that are read right; the next epoch puts the student back to training."""
    student.eval()
    right = 0
    for images, labels in batches:
        logits = forward(student, images.to(device, torch.float32))
        right += int((logits.argmax(dim=1) == labels.to(device)).sum())
    return right


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
