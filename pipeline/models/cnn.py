"""The student: a plain chain of 3x3 convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.params import Cnn


class ConvBlock(nn.Sequential):
    """A 3x3 convolution, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: tuple[int, int]) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


def conv_chain(channels: tuple[int, ...], strides: tuple[tuple[int, int], ...]) -> nn.Sequential:
    """Convolutions one after the other, on one grey channel.

    Args:
        channels: the width of each convolution.
        strides: vertical and horizontal stride of each.
    """
    widths = (1, *channels)
    return nn.Sequential(
        *(
            ConvBlock(widths[place], widths[place + 1], stride)
            for place, stride in enumerate(strides)
        )
    )


class PlainCnn(nn.Module):
    """Convolutions, mean over the feature map, a linear layer.

    The first two convolutions halve the map, and of the others every second one does: most of the
    work is then done on a quarter of the image's height, and one image takes less than a
    millisecond.
    """

    def __init__(self, network: Cnn, classes: int) -> None:
        super().__init__()
        count = len(network.channels)
        strides = [(2, 2) if place % 2 or not place else (1, 1) for place in range(count)]
        self.features = conv_chain(network.channels, tuple(strides))
        self.dropout = nn.Dropout(network.dropout)
        self.classifier = nn.Linear(network.channels[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of standardised grey images (N, 1, H, W)."""
        features: Tensor = self.features(images)
        logits: Tensor = self.classifier(self.dropout(features.mean(dim=(2, 3))))
        return logits
