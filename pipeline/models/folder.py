"""Model folders: weights without pickle, and a JSON that says what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import DataError
from pipeline.files import sha256, write_whole
from pipeline.models.build import ScriptClassifier, build
from pipeline.params import Architecture, View

WEIGHTS_FILE = "model.safetensors"
ABOUT_FILE = "model.json"
NORMALISATION = (
    "each image by its own mean and standard deviation (of one grey level at least), inverted if "
    "its skewness is positive"
)


class InputSize(BaseModel):
    """What a model is shown: grey images of this size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int
    height: int
    width: int


class ModelInfo(BaseModel):
    """What a model is, and all that decided its weights: the content of model.json.

    Attributes:
        network: architecture and its arguments.
        scripts: names in the order of the logits.
        teachers: the runs it learnt from, with their weights.
        parameters: the parameters of its run.
        metrics: what training said: validation accuracy and loss, the best epoch, epochs.
        weights_sha256: of model.safetensors, so that the two files are known to belong together;
            null until it is written, and in models of before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    role: str
    network: Architecture
    scripts: tuple[str, ...]
    input: InputSize
    normalisation: str
    teachers: dict[str, float]
    data_source: str
    data_version: str
    parameters: dict[str, Any]
    code_version: str
    metrics: dict[str, float]
    weights_sha256: str | None = None


def save_model(folder: Path, info: ModelInfo, weights: dict[str, Tensor]) -> ModelInfo:
    """Writes the two files into an existing folder.

    Returns:
        What was written, the checksum of the weights included.
    """
    path = folder / WEIGHTS_FILE
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path)
    written = info.model_copy(update={"weights_sha256": sha256(path)})
    write_whole(folder / ABOUT_FILE, written.model_dump_json(indent=2) + "\n")
    return written


def read_info(folder: Path) -> ModelInfo:
    """What model.json says.

    Raises:
        DataError: there is no model, or its model.json is not one.
    """
    path = folder / ABOUT_FILE
    try:
        return ModelInfo.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise DataError(
            f"{folder} holds no model: make one by python -m pipeline train RUN, or give another "
            "folder"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} does not describe a model: {error}") from error


def load_model(folder: Path) -> tuple[ScriptClassifier, ModelInfo]:
    """The model of a folder, in evaluation mode, and what it is.

    Raises:
        DataError: a file is missing, damaged, or does not fit the other.
    """
    info = read_info(folder)
    if info.normalisation != NORMALISATION:
        raise DataError(
            f"{folder} was made by another version, which normalised its input otherwise "
            f"({info.normalisation}): use that version, or train {info.run} again"
        )
    view = View(height=info.input.height, width=info.input.width)
    model = build(info.network, len(info.scripts), view, pretrained=False)
    path = folder / WEIGHTS_FILE
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"{path} cannot be loaded: {error}; train the run again") from error
    if info.weights_sha256 != sha256(path):
        raise DataError(
            f"{path} is not the file that {ABOUT_FILE} beside it describes: it is damaged, or of "
            "another training; copy both files again, or train the run again"
        )
    return model.eval(), info
