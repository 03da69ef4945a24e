"""From a row of params.yaml to a network."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.models.cnn import PlainCnn
from pipeline.models.crnn import CnnLstm
from pipeline.models.ocr import OcrTeacher
from pipeline.params import Architecture, Cnn, Crnn, Ocr, View


class ScriptClassifier(nn.Module):
    """A network and the normalisation of its input: grey values in, logits out.

    Each image is standardised by its own mean and deviation, so that brightness and contrast cannot
    change what is seen.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes).

        Args:
            images: float (N, 1, H, W), grey values from 0 to 255.
        """
        centred = images - images.mean(dim=(2, 3), keepdim=True)
        # One grey level keeps an image of one colour from being divided by zero.
        deviation = centred.square().mean(dim=(2, 3), keepdim=True).sqrt() + 1
        logits: Tensor = self.network(centred / deviation)
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
        if pretrained:
            teacher.load_pretrained()
        return ScriptClassifier(teacher)
    # timm takes seconds to import, and most networks here need none of it.
    from pipeline.models.timm import TimmTeacher  # noqa: PLC0415

    if not pretrained:
        network = network.model_copy(update={"weights": None})
    return ScriptClassifier(TimmTeacher(network, classes, view))


def describe(network: Architecture) -> str:
    """A few words for tables, for example ``timm resnet18``."""
    if isinstance(network, Cnn | Crnn):
        widths = "-".join(str(width) for width in network.channels)
        return f"{network.architecture} {widths}"
    return f"timm {network.name}" if network.architecture == "timm" else "ocr PP-OCRv6"
