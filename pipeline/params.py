"""The one typed model of params.yaml. Unknown keys and bad values are refused, a line each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline import scripts
from pipeline.errors import UsageError
from pipeline.search.settings import Search

PARAMS_FILE = Path("params.yaml")

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Targets = Literal["live", "stored"]
Finding = Literal[
    "test_in_train", "test_in_validation", "validation_in_train", "unreadable", "label_disagrees"
]


class Section(BaseModel):
    """A mapping in params.yaml: frozen, with no key but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """Which images, with which labels, in which shards.

    Attributes:
        source: ``generated`` or ``cvsi`` (real images in any layout of CVSI-2015).
        root: the folder or archive that holds the images.
        task: a task of the competition, see :data:`pipeline.scripts.TASKS`.
        scripts: a set of scripts, instead of a task.
        rev: a revision of the git history whose shards are taken as they are; null takes those
            that are made here.
        allow: findings of the audit that are let through, by name.
        held_out: the share of train, seeded and by script, that becomes validation where the
            source has none, or where its validation is judged on because it has no test.
        shard_images: images in a shard.
        shuffle_shards: shards whose images are shuffled together.
    """

    source: Literal["generated", "cvsi"]
    root: Path
    task: str | None = None
    scripts: tuple[str, ...] | None = None
    rev: str | None = None
    allow: tuple[Finding, ...] = ()
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.15
    shard_images: Count = 500
    shuffle_shards: Count = 32

    @field_validator("task", mode="before")
    @classmethod
    def _known_task(cls, task: Any) -> Any:
        if task is not None and str(task) not in scripts.TASKS:
            raise ValueError(f"unknown task {task!r}; one of {', '.join(scripts.TASKS)}")
        return None if task is None else str(task)

    @field_validator("scripts")
    @classmethod
    def _known_scripts(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is None:
            return None
        if unknown := [name for name in names if name not in scripts.BY_NAME]:
            raise ValueError(f"unknown scripts {unknown}; of {', '.join(scripts.NAMES)}")
        if len(set(names)) < 2:
            raise ValueError("at least two different scripts are needed")
        return names

    @model_validator(mode="after")
    def _one_choice(self) -> Data:
        if (self.task is None) == (self.scripts is None):
            raise ValueError("give either task or scripts, and leave the other null")
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """The chosen scripts, in alphabetical order: the order of the logits."""
        if self.scripts is not None:
            return tuple(sorted(set(self.scripts)))
        assert self.task is not None
        return scripts.TASKS[self.task]


class Generate(Section):
    """The generated words: how many images a split has over all ten scripts, and their seed."""

    train: Count
    validation: Count
    test: Count
    seed: Seed = 0


class Augment(Section):
    """How far a training view may differ from its image; 0 switches a change off.

    Brightness, contrast and polarity are not among the changes: models see none of them.

    Attributes:
        rotate: largest rotation, in degrees.
        shear: largest horizontal shear, in degrees.
        scale: largest relative change of size, and of width against height.
        shift: largest shift, as a share of the size.
        perspective: largest relative change of size from the centre to a side.
        blur: probability of a blur (Gaussian or motion).
        noise: probability of noise.
        jpeg: probability that the view is compressed again as JPEG.
        shrink: probability that the view is drawn smaller and enlarged again.
        stroke: probability that strokes are made thicker or thinner.
        occlude: probability that a part is covered.
    """

    rotate: Annotated[float, Field(ge=0, le=45)] = 0
    shear: Annotated[float, Field(ge=0, le=45)] = 0
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0
    perspective: Annotated[float, Field(ge=0, le=0.3)] = 0
    blur: Fraction = 0
    noise: Fraction = 0
    jpeg: Fraction = 0
    shrink: Fraction = 0
    stroke: Fraction = 0
    occlude: Fraction = 0


class View(Section):
    """What a model is shown of an image: its grey values, ``height`` x ``width`` pixels.

    Attributes:
        augment: how training views differ from their images.
        cycle: training views of each image; after so many epochs the first ones are shown again,
            from memory. 0 makes new ones every epoch.
    """

    height: Annotated[int, Field(ge=16, le=512)] = 32
    width: Annotated[int, Field(ge=16, le=2048)] = 128
    augment: Augment = Augment()
    cycle: Annotated[int, Field(ge=0)] = 0

    def number(self, epoch: int) -> int:
        """Which of an image's training views an epoch shows."""
        return epoch % self.cycle if self.cycle else epoch


class Training(Section):
    """How a model is trained. The number of workers is not here: it does not change the result.

    Attributes:
        epochs: passes over the training images.
        batch_size: images in a step, over all workers together.
        optimizer: ``adamw`` or ``sgd`` (with Nesterov momentum ``momentum``).
        lr: peak learning rate, reached after warm-up and followed by a cosine to zero.
        pretrained_lr: the rate of weights that came pretrained, as a share of ``lr``: they are near
            where they should be, while a new head has everything to learn.
        warmup: the share of all steps in which the rate rises linearly.
        label_smoothing: the probability given to all classes evenly.
        mixup: alpha of the Beta distribution of mixing weights; 0 is off.
        ema: decay of the moving average of the weights that is evaluated and kept; 0 is off.
        clip_norm: largest norm of the gradient; 0 is off.
        patience: epochs without a better validation accuracy before training stops; 0 is off.
        precision: ``auto`` takes bf16 where the device computes it faster, else fp32.
    """

    epochs: Count
    batch_size: Count = 128
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Positive = 2e-3
    pretrained_lr: Fraction = 1.0
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup: Fraction = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    patience: Annotated[int, Field(ge=0)] = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class Timm(Section):
    """A timm network, its first downsamplings undone so that a small wide image keeps its detail.

    Attributes:
        name: any name that ``timm.list_models()`` knows.
        weights: a local file of pretrained weights; null trains from scratch.
        reduction: how many input pixels, in height, become one of the last feature map.
        arguments: handed to ``timm.create_model``.
    """

    architecture: Literal["timm"]
    name: str
    weights: Path | None = None
    reduction: Annotated[int, Field(ge=1, le=64)] = 8
    arguments: dict[str, bool | int | float | str] = {}


class Ocr(Section):
    """The pretrained text-recognition backbone that comes inside the ``rapidocr`` package.

    Attributes:
        depth: the share of the backbone's blocks that is kept, from the input on.
        hidden: units of the layer between the pooled features and the logits.
    """

    architecture: Literal["ocr"]
    depth: Annotated[float, Field(gt=0, le=1)] = 0.75
    hidden: Count = 256
    dropout: Fraction = 0.1


class Crnn(Section):
    """The assistant: convolutions, then a bidirectional LSTM over the width."""

    architecture: Literal["crnn"]
    channels: tuple[Count, ...]
    hidden: Count
    layers: Count = 1
    dropout: Fraction = 0.1


class Cnn(Section):
    """The student: a plain chain of convolutions, each with batch norm and ReLU.

    Attributes:
        channels: the width of each; one that has the width of the one before adds its input.
    """

    architecture: Literal["cnn"]
    channels: tuple[Count, ...]
    dropout: Fraction = 0.1


Architecture = Annotated[Timm | Ocr | Crnn | Cnn, Field(discriminator="architecture")]


class Model(Section):
    """A network, and how it is trained where that differs from ``training``."""

    network: Architecture
    training: dict[str, Any] = {}


class Distillation(Section):
    """How a model learns from its teachers.

    The loss is ``(1 - weight) * cross-entropy + weight * soft loss``.

    Attributes:
        loss: ``hinton`` (Hinton 2015), ``dkd`` (Zhao 2022) or ``dist`` (Huang 2022).
        temperature: divides the logits before the softmax.
        weight: the share of the soft loss.
        standardize: z-score the logits of both sides first (Sun 2024).
        alpha: weight of DKD's target-class part, and of DIST's relations between classes.
        beta: weight of DKD's non-target part, and of DIST's relations within a class.
    """

    loss: Literal["hinton", "dkd", "dist"] = "hinton"
    temperature: Positive = 4.0
    weight: Fraction = 0.9
    standardize: bool = False
    alpha: Annotated[float, Field(ge=0)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 1.0


class Chain(Section):
    """How the two roles that have teachers learn from them.

    Attributes:
        targets: where the teachers' logits come from, for every run that has teachers: ``live``
            asks the teachers in every step, ``stored`` reads what they once said of each view.
    """

    targets: Targets = "live"
    assistant: Distillation
    student: Distillation


class FurtherRun(Section):
    """A run beside the matrix: a longer chain, an ensemble of teachers, another model.

    Attributes:
        model: a key of ``models``.
        teachers: run names, each with its weight; without them it learns from labels alone.
        distillation: where there are teachers.
    """

    model: str
    teachers: dict[str, Positive] = {}
    distillation: Distillation | None = None

    @model_validator(mode="after")
    def _go_together(self) -> FurtherRun:
        if bool(self.teachers) != (self.distillation is not None):
            raise ValueError("teachers and distillation go together: give both or neither")
        return self


class Params(Section):
    """All of params.yaml."""

    seed: Seed
    data: Data
    generate: Generate
    view: View
    teachers: Annotated[tuple[Name, ...], Field(min_length=1)]
    models: dict[Name, Model]
    training: Training
    distillation: Chain
    runs: dict[Name, FurtherRun] = {}
    search: Search = Search()

    @model_validator(mode="after")
    def _fits_together(self) -> Params:
        problems = []
        wanted = {*self.teachers, "assistant", "student", *(r.model for r in self.runs.values())}
        for name in sorted(wanted - set(self.models)):
            problems.append(f"models: no entry for {name}; add one")
        if len(set(self.teachers)) != len(self.teachers):
            problems.append("teachers: one model is named twice")
        trained: dict[str, Training] = {}
        for name in self.models:
            try:
                trained[name] = self.training_of(name)
            except ValueError as error:
                problems += str(error).splitlines()
        learners = [
            ("distillation.assistant", "assistant", self.distillation.assistant),
            ("distillation.student", "student", self.distillation.student),
            *(
                (f"runs.{name}.distillation", row.model, row.distillation)
                for name, row in self.runs.items()
                if row.distillation is not None
            ),
        ]
        mixing = {model for model, training in trained.items() if training.mixup}
        for path, model, distillation in learners:
            # Its two parts are told apart by the one class of an image, and a mixture has two.
            if distillation.loss == "dkd" and model in mixing:
                problems.append(f"{path}.loss: dkd needs training.mixup 0 for the model {model}")
        if self.distillation.targets == "stored":
            problems += [
                f"distillation.targets: stored needs training.mixup 0 for the model {model}: what "
                "a teacher says of a mixture is no mixture of what it says of its parts; or take "
                "live"
                for model in sorted(mixing & {model for _, model, _ in learners})
            ]
            if not self.view.cycle:
                problems.append(
                    "distillation.targets: stored needs a view.cycle of 1 or more: with 0 every "
                    "epoch shows new views, which nobody has asked a teacher about; or take live"
                )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def training_of(self, model: str) -> Training:
        """The training of one model: ``training``, with what the model's own row changes."""
        overrides = self.models[model].training
        try:
            return Training.model_validate({**self.training.model_dump(), **overrides})
        except ValidationError as error:
            lines = [f"models.{model}.training.{line}" for line in _lines(error)]
            raise ValueError("\n".join(lines)) from error


def load(path: Path = PARAMS_FILE) -> Params:
    """Reads and checks a parameter file.

    Raises:
        UsageError: the file is missing, is no YAML, or has keys or values that are refused; every
            one of them is named, a line each.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: run this from the project's top folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    return parse(content, str(path))


def parse(content: Any, name: str) -> Params:
    """Checks parameters that were read already.

    Raises:
        UsageError: as :func:`load`.
    """
    try:
        found = Params.model_validate(content)
    except ValidationError as error:
        lines = _lines(error)
        count = f"{len(lines)} error" + ("s" if len(lines) > 1 else "")
        raise UsageError(
            "\n".join([f"{count} in {name}:", *(f"  {line}" for line in lines)])
        ) from error
    if found.search.settings:
        # No stage depends on it: students would not be trained anew.
        raise UsageError(
            f"1 error in {name}:\n  search.settings: taken from search/best.yaml alone; write "
            "settings where they belong, or set search.used to best"
        )
    return found


def _lines(error: ValidationError) -> list[str]:
    tags = {"timm", "ocr", "crnn", "cnn"}
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"] if part not in tags)
        if item["type"] == "extra_forbidden":
            message = "unknown key"
        else:
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] != "missing" and item["loc"]:
                message += (
                    f" (got {item['input']!r})" if not isinstance(item["input"], dict) else ""
                )
        lines += [f"{path}: {message}"] if path else message.splitlines()
    return lines
