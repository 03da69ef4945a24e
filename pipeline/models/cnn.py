"""The student: a plain chain of 3x3 convolutions."""

from __future__ import annotations

import torch
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


def mean_and_maximum(features: Tensor) -> Tensor:
    """Pools a feature map, (N, C, H, W) to (N, 2C).

    The mean tells what there is much of, the maximum what there is at all.
    """
    return torch.cat((features.mean(dim=(2, 3)), features.amax(dim=(2, 3))), dim=1)


class PlainCnn(nn.Module):
    """Convolutions, mean and maximum over the feature map, a linear layer.

    The first three convolutions halve the map and the last one its height, so that most weights
    work on an eighth of the image's height: more images are seen in a given time, and one takes a
    fraction of a millisecond.
    """

    def __init__(self, network: Cnn, classes: int) -> None:
        super().__init__()
        count = len(network.channels)
        strides = [(2, 2) if place < 3 else (1, 1) for place in range(count)]
        if count > 3:
            strides[-1] = (2, 1)
        self.features = conv_chain(network.channels, tuple(strides))
        self.dropout = nn.Dropout(network.dropout)
        self.classifier = nn.Linear(2 * network.channels[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of standardised grey images (N, 1, H, W)."""
        features: Tensor = self.features(images)
        logits: Tensor = self.classifier(self.dropout(mean_and_maximum(features)))
        return logits
