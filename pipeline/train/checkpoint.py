"""Checkpoints: everything a training needs to go on as if nothing had happened, without pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import DataError
from pipeline.files import write_whole

TENSORS_FILE = "state.safetensors"
NUMBERS_FILE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training between two steps.

    The random state is not in it: every step seeds its own from (seed, epoch, step, rank). Nor is
    the learning rate, a function of the step.

    Attributes:
        epoch: the epoch under way, from 0.
        step: the next step of that epoch.
        tensors: of the model, its average, the best weights, the optimizer and the method, under
            names that begin with ``model.``, ``average.``, ``best.``, ``optimizer.``, ``method.``.
        numbers: what JSON can hold: the history, the best epoch, the sums of the epoch under way,
            the gradient scaler's state.
    """

    epoch: int
    step: int
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``name.``, under the rest of their names."""
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(prefix)
        }

    def save(self, folder: Path) -> None:
        """Writes the checkpoint into an existing folder."""
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()},
            folder / TENSORS_FILE,
        )
        numbers = {"epoch": self.epoch, "step": self.step, "numbers": self.numbers}
        write_whole(folder / NUMBERS_FILE, json.dumps(numbers, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """Reads what :meth:`save` wrote.

        Raises:
            DataError: the checkpoint is incomplete or damaged.
        """
        try:
            numbers = json.loads((folder / NUMBERS_FILE).read_text())
            tensors = load_file(folder / TENSORS_FILE)
            return cls(numbers["epoch"], numbers["step"], tensors, numbers["numbers"])
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise DataError(f"{folder} is no whole checkpoint: {error}; remove it") from error
