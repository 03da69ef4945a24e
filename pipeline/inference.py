"""Images in, logits out: what judging, exporting and predicting share."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

from pipeline.data.audit import MAX_PIXELS
from pipeline.data.loader import Batch, Loader, ViewDataset
from pipeline.data.plan import Planner
from pipeline.data.shards import Index, ShardFolder
from pipeline.data.view import Grey, decode
from pipeline.errors import DataError
from pipeline.models.folder import ModelInfo
from pipeline.params import View
from pipeline.scripts import Split

BATCH: Final = 256
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP")

Ask = Callable[[Tensor], Tensor]
"""From float images (N, 1, H, W), grey values 0 to 255, to float logits (N, classes), on the CPU.
"""


@dataclass(frozen=True)
class Answers:
    """What a model said of labelled images.

    Attributes:
        keys: N official names.
        labels: int64 (N,), places in the model's ``scripts``.
        logits: float32 (N, classes).
    """

    keys: tuple[str, ...]
    labels: Tensor
    logits: Tensor

    @property
    def right(self) -> Tensor:
        """Whether the largest logit is the label's: bool (N,)."""
        return self.logits.argmax(dim=1) == self.labels


def view_of(info: ModelInfo) -> View:
    """What a model is shown of an image."""
    return View(height=info.input.height, width=info.input.width)


def asker(model: nn.Module, device: torch.device) -> Ask:
    """Asks a model on a device, in full fp32; the model is moved there."""
    model.to(device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def ask(images: Tensor) -> Tensor:
        # TF32 would round the convolutions, and so make a GPU judge other than a CPU does.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            logits: Tensor = model(images.to(device))
        return logits.cpu()

    return ask


def answer(
    ask: Ask, batches: Iterable[Batch], progress: Callable[[int], None] = lambda done: None
) -> Answers:
    """Asks a model about every batch.

    Args:
        ask: the model.
        batches: labelled images.
        progress: called with the images that were answered so far.

    Raises:
        DataError: it answers with numbers that are not finite, or a batch cannot be read.
    """
    keys: list[str] = []
    labels, logits = [], []
    for batch in batches:
        keys += batch.keys
        labels.append(batch.labels)
        logits.append(ask(batch.images.float()))
        progress(len(keys))
    said = Answers(tuple(keys), torch.cat(labels), torch.cat(logits))
    if bad := int((~said.logits.isfinite().all(dim=1)).sum()):
        raise DataError(
            f"the model answers {bad} of {len(keys)} images with numbers that are not finite: its "
            "weights are damaged; train it again"
        )
    return said


def load_as_they_are(shards: Path, index: Index, split: Split, view: View) -> Iterator[Batch]:
    """A split's images without augmentation, every shard checked against the index before use.

    Raises:
        DataError: there are none, or a shard is missing or damaged.
    """
    found = index.of(split)
    if not found:
        raise DataError(f"{shards} has no {split} images; run python -m pipeline shards")
    dataset = ViewDataset(ShardFolder(shards), index, split, view, seed=None, window=1)
    samples = tuple(shard.samples for shard in found)
    return Loader(dataset, Planner(samples, BATCH, seed=0, window=1)).all_in_order()


def check_data(info: ModelInfo, index: Index, model: Path, shards: Path) -> None:
    """Refuses to judge a model on the test split of other data than it was trained on.

    Raises:
        DataError: the model's data version, or its scripts, are not the index's.
    """
    if (info.data_version, info.scripts) != (index.version, index.scripts):
        raise DataError(
            f"{model} was trained on data version {info.data_version[:12]} "
            f"({', '.join(info.scripts)}), but {shards} holds version {index.version[:12]} "
            f"({', '.join(index.scripts)}), whose test images it may have seen: train "
            f"{info.run} again"
        )


def read_image(content: bytes, origin: str) -> Grey:
    """The grey values of an image from a stranger, (H, W).

    Raises:
        DataError: it is no whole image of :data:`FORMATS`, or has more than ``MAX_PIXELS`` pixels;
            the message names ``origin``.
    """
    try:
        with warnings.catch_warnings():
            # PIL warns of a large image; the limit here is far lower and is no warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        with image:
            # Only the header has been read so far: a huge image costs nothing.
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{origin} has {image.width}x{image.height} pixels, more than "
                    f"{MAX_PIXELS // 10**6} million; cut the word out"
                )
            # OpenCV fills what is missing of a truncated image with grey and says nothing.
            image.load()
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{origin} has more than {MAX_PIXELS // 10**6} million pixels; cut the word out"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{origin} is no image ({', '.join(FORMATS)}); replace or remove it"
        ) from error
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise DataError(f"{origin} is a broken image: {error}; replace or remove it") from error
    return decode(content, origin)
