"""The student: a plain chain of convolutions."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.params import Cnn


class ConvBlock(nn.Module):
    """A convolution, batch norm, ReLU; where the map stays as it is, its input is added (He 2016).

    Args:
        channels_in: of the input.
        channels_out: of the output.
        stride: vertical and horizontal.
        kernel: its height and width; an even one is centred between pixels.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: tuple[int, int] = (1, 1), kernel: int = 3
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            channels_in, channels_out, kernel, stride, padding=(kernel - 1) // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(channels_out)
        self.adds = channels_in == channels_out and stride == (1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """A feature map (N, channels_out, H / stride, W / stride) of (N, channels_in, H, W)."""
        made: Tensor = self.norm(self.convolution(features))
        return functional.relu(made + features if self.adds else made)


def conv_chain(channels: tuple[int, ...], strides: tuple[tuple[int, int], ...]) -> nn.Sequential:
    """Convolutions one after the other, on one grey channel: the first 6x6, the others 3x3.

    The first is as if it were a 3x3 one on blocks of 2x2 pixels: it halves the map without a loss.

    Args:
        channels: the width of each convolution.
        strides: vertical and horizontal stride of the first convolution, and of each that changes
            the width; those beyond the last one are as the last one.
    """
    blocks = [ConvBlock(1, channels[0], strides[0], kernel=6)]
    shrunk = 1
    for before, width in pairwise(channels):
        if width == before:
            blocks.append(ConvBlock(width, width))
        else:
            blocks.append(ConvBlock(before, width, strides[min(shrunk, len(strides) - 1)]))
            shrunk += 1
    return nn.Sequential(*blocks)


def mean_and_maximum(features: Tensor) -> Tensor:
    """Pools a feature map, (N, C, H, W) to (N, 2C).

    The mean tells what there is much of, the maximum what there is at all.
    """
    return torch.cat((features.mean(dim=(2, 3)), features.amax(dim=(2, 3))), dim=1)


class PlainCnn(nn.Module):
    """Convolutions, mean and maximum over the feature map, a linear layer.

    The map shrinks where the width changes: three times by half, the first convolution included,
    then in height alone. So a width that is given again is a layer more at the same size, which
    adds its input: several of them learn from fewer images than one alone.
    """

    def __init__(self, network: Cnn, classes: int) -> None:
        super().__init__()
        self.features = conv_chain(network.channels, ((2, 2), (2, 2), (2, 2), (2, 1)))
        self.dropout = nn.Dropout(network.dropout)
        self.classifier = nn.Linear(2 * network.channels[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of standardised grey images (N, 1, H, W)."""
        features: Tensor = self.features(images)
        logits: Tensor = self.classifier(self.dropout(mean_and_maximum(features)))
        return logits
