"""From a row of params.yaml to a network."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline.models.cnn import PlainCnn
from pipeline.models.crnn import CnnLstm
from pipeline.models.ocr import OcrTeacher
from pipeline.params import Architecture, Cnn, Crnn, Ocr, View


class ScriptClassifier(nn.Module):
    """A network and the normalisation of its input: grey values in, logits out.

    Each image is standardised by its own mean and deviation, and inverted where its bright pixels
    are the fewer ones: text covers less than its ground, and so becomes the darker of the two.
    Neither brightness nor contrast nor polarity changes what the network sees.

    Attributes:
        pretrained: the parameters that had learnt something before they came here.
    """

    def __init__(self, network: nn.Module, pretrained: Iterable[nn.Parameter] = ()) -> None:
        super().__init__()
        self.network = network
        self.pretrained = tuple(pretrained)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes).

        Args:
            images: float (N, 1, H, W), grey values from 0 to 255.
        """
        centred = images - images.mean(dim=(2, 3), keepdim=True)
        # An image of one colour is not divided by zero.
        deviation = centred.square().mean(dim=(2, 3), keepdim=True).sqrt().clamp(min=1)
        standard = centred / deviation
        skewness = standard.pow(3).mean(dim=(2, 3), keepdim=True)
        logits: Tensor = self.network(torch.where(skewness > 0, -standard, standard))
        return logits


def build(
    network: Architecture, classes: int, view: View, *, pretrained: bool = True
) -> ScriptClassifier:
    """The network a row of params.yaml describes.

    Args:
        network: the architecture and its arguments.
        classes: scripts to tell apart.
        view: the size of the input.
        pretrained: start from pretrained weights where the architecture has them; off where
            weights are loaded next, which then need no file but their own.

    Raises:
        UsageError: there is no such network.
        DataError: its pretrained weights are missing.
    """
    if isinstance(network, Cnn):
        return ScriptClassifier(PlainCnn(network, classes))
    if isinstance(network, Crnn):
        return ScriptClassifier(CnnLstm(network, classes))
    if isinstance(network, Ocr):
        teacher = OcrTeacher(network, classes)
        return ScriptClassifier(teacher, teacher.load_pretrained() if pretrained else ())
    # timm takes seconds to import, and most networks here need none of it.
    from pipeline.models.timm import TimmTeacher  # noqa: PLC0415

    if not pretrained:
        network = network.model_copy(update={"weights": None})
    chosen = TimmTeacher(network, classes, view)
    return ScriptClassifier(chosen, chosen.backbone() if network.weights else ())


def describe(network: Architecture) -> str:
    """A few words for tables, for example ``timm resnet18``."""
    if isinstance(network, Cnn | Crnn):
        widths = "-".join(str(width) for width in network.channels)
        return f"{network.architecture} {widths}"
    return f"timm {network.name}" if network.architecture == "timm" else "ocr PP-OCRv6"
