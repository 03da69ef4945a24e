"""A teacher with a pretrained text-recognition backbone: that of PP-OCRv6, which rapidocr ships.

The backbone is written out here as a PyTorch module, since a model folder must load with nothing
else at hand; only its first weights are read from the package's ONNX file. Batch norms are folded
into the convolutions there, so it has none.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import DataError
from pipeline.models.cnn import mean_and_maximum
from pipeline.params import Ocr

WEIGHTS = "models/PP-OCRv6_rec_small.onnx"

# A row is a block: output channels, vertical stride, whether it has squeeze and excitation.
_BLOCKS = (
    *((96, 1, True), (96, 1, False), (96, 1, False)),
    *((192, 2, False), (192, 1, True), (192, 1, False), (192, 1, True)),
    *((192, 1, False), (192, 1, True), (192, 1, False)),
    *((384, 2, False), (384, 1, True), (384, 1, False)),
)


class _Stem(nn.Module):
    """Two parallel paths between two strided convolutions: a quarter of the size, 96 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 48, 3, 2, 1)
        self.narrow = nn.Conv2d(48, 24, 2)
        self.widen = nn.Conv2d(24, 48, 2)
        self.merge = nn.Conv2d(96, 48, 3, 2, 1)
        self.last = nn.Conv2d(48, 96, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images).relu()
        # ONNX's SAME_UPPER: the odd pixel of padding goes below and to the right.
        path = self.narrow(functional.pad(first, (0, 1, 0, 1))).relu()
        path = self.widen(functional.pad(path, (0, 1, 0, 1))).relu()
        # Zero is the least value after a ReLU, so padding with it does not change a maximum.
        pooled = functional.max_pool2d(functional.pad(first, (0, 1, 0, 1)), 2, 1)
        merged = self.merge(torch.cat((pooled, path), dim=1)).relu()
        last: Tensor = self.last(merged).relu()
        return last


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        gate = self.expand(self.reduce(features.mean(dim=(2, 3), keepdim=True)).relu())
        return features * functional.hardsigmoid(gate)


class _Block(nn.Module):
    """Depthwise 3x3 convolution, two pointwise ones around a GELU; residual where it can be."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels_in, channels_in, 3, (stride, 1), padding=1, groups=channels_in
        )
        self.squeeze = _SqueezeExcite(channels_in) if squeeze else nn.Identity()
        self.expand = nn.Conv2d(channels_in, 2 * channels_in, 1)
        self.project = nn.Conv2d(2 * channels_in, channels_out, 1)
        self.residual = channels_in == channels_out

    def forward(self, features: Tensor) -> Tensor:
        mixed = self.squeeze(self.depthwise(features))
        projected: Tensor = self.project(functional.gelu(self.expand(mixed)))
        return mixed + projected if self.residual else projected


class OcrTeacher(nn.Module):
    """The backbone's first blocks, mean and maximum over the map, two linear layers."""

    def __init__(self, network: Ocr, classes: int) -> None:
        super().__init__()
        self.stem = _Stem()
        kept = _BLOCKS[: math.ceil(network.depth * len(_BLOCKS))]
        widths = (96, *(channels for channels, _, _ in kept))
        self.blocks = nn.Sequential(
            *(
                _Block(widths[place], channels, stride, squeeze)
                for place, (channels, stride, squeeze) in enumerate(kept)
            )
        )
        self.head = nn.Sequential(
            nn.BatchNorm1d(2 * widths[-1]),
            nn.Linear(2 * widths[-1], network.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(network.dropout),
            nn.Linear(network.hidden, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of standardised grey images (N, 1, H, W)."""
        features = self.blocks(self.stem(images.expand(-1, 3, -1, -1)))
        logits: Tensor = self.head(mean_and_maximum(features))
        return logits

    def load_pretrained(self) -> list[nn.Parameter]:
        """Copies the backbone's weights from the rapidocr package.

        Returns:
            The parameters that were copied.

        Raises:
            DataError: the package or its weights are missing, or are another version's.
        """
        weights = _pretrained()
        convolutions = [
            layer
            for part in (self.stem, self.blocks)
            for layer in part.modules()
            if isinstance(layer, nn.Conv2d)
        ]
        if len(weights) < len(convolutions):
            raise DataError(
                f"{WEIGHTS} of rapidocr has {len(weights)} convolutions where {len(convolutions)} "
                "are expected; install the version in requirements.lock"
            )
        with torch.no_grad():
            for layer, (weight, bias) in zip(convolutions, weights, strict=False):
                if layer.weight.shape != weight.shape:
                    raise DataError(
                        f"{WEIGHTS} of rapidocr has a {tuple(weight.shape)} convolution where "
                        f"{tuple(layer.weight.shape)} is expected; install the version in "
                        "requirements.lock"
                    )
                layer.weight.copy_(weight)
                assert layer.bias is not None
                layer.bias.copy_(bias)
        return [parameter for layer in convolutions for parameter in layer.parameters()]


def weights_file() -> Path | None:
    """The ONNX file inside the rapidocr package, or None where it is not installed."""
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / WEIGHTS
    return path if path.exists() else None


def _pretrained() -> list[tuple[Tensor, Tensor]]:
    path = weights_file()
    if path is None:
        raise DataError(
            "the weights of the ocr teacher come in the package rapidocr, which is not installed "
            f"with its {WEIGHTS}: pip install --no-deps -r requirements.lock"
        )
    # Only a new teacher needs it, and it takes a second to import.
    import onnx  # noqa: PLC0415

    graph = onnx.load(path).graph
    arrays = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}

    def constant(name: str) -> Tensor | None:
        while name in source:
            name = source[name]
        return torch.tensor(arrays[name]) if name in arrays else None

    biases = {
        node.input[0]: constant(node.input[1]) for node in graph.node if node.op_type == "Add"
    }
    pairs = []
    for node in graph.node:
        if node.op_type == "Conv":
            weight, bias = constant(node.input[1]), biases.get(node.output[0])
            if weight is not None and bias is not None:
                pairs.append((weight, bias.flatten()))
    return pairs
