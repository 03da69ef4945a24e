"""The assistant: convolutions, then a bidirectional LSTM over the width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.cnn import conv_chain, mean_and_maximum
from pipeline.params import Crnn


class CnnLstm(nn.Module):
    """Reads a word's columns in order, as CNN+LSTM recognisers do (Bhunia 2019).

    The convolutions make a column of every four pixels of width; what is left of the height is
    averaged. The LSTM runs over the columns in both directions, and its outputs are averaged. The
    classifier is shown the convolutions' mean and maximum too: through the LSTM alone they would
    hear of their mistakes late, and learn from many more images.
    """

    def __init__(self, network: Crnn, classes: int) -> None:
        super().__init__()
        self.features = conv_chain(network.channels, ((2, 2), (2, 2), (2, 1), (1, 1)))
        self.lstm = nn.LSTM(
            network.channels[-1],
            network.hidden,
            network.layers,
            batch_first=True,
            bidirectional=True,
        )
        self.dropout = nn.Dropout(network.dropout)
        self.classifier = nn.Linear(2 * (network.hidden + network.channels[-1]), classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of standardised grey images (N, 1, H, W)."""
        features = self.features(images)
        columns = features.mean(dim=2).transpose(1, 2)
        # The CPU's LSTM kernel for bf16 is slower than the one for fp32.
        if columns.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                states, _ = self.lstm(columns.float())
        else:
            states, _ = self.lstm(columns)
        read = torch.cat((states.mean(dim=1), mean_and_maximum(features)), dim=1)
        logits: Tensor = self.classifier(self.dropout(read))
        return logits
