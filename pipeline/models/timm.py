"""Teachers from timm, with their first downsamplings undone for small wide images."""

from __future__ import annotations

import difflib
import math
from typing import Any

import timm
import torch
from torch import Tensor, nn

from pipeline.errors import DataError, UsageError
from pipeline.params import Timm, View


class TimmTeacher(nn.Module):
    """Any timm network on one grey channel.

    A word of 32 pixels' height has nothing left to see after the 32-fold downsampling that these
    networks are built for, so the first strides are taken out until ``reduction`` is kept.
    """

    def __init__(self, network: Timm, classes: int, view: View) -> None:
        super().__init__()
        self.network = _create(network, classes, view)
        undo_downsampling(self.network, view, network.reduction)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of standardised grey images (N, 1, H, W)."""
        logits: Tensor = self.network(images)
        return logits

    def backbone(self) -> list[nn.Parameter]:
        """The parameters of everything but the classifier."""
        network: Any = self.network
        head = set(map(id, network.get_classifier().parameters()))
        return [parameter for parameter in self.network.parameters() if id(parameter) not in head]


def _create(network: Timm, classes: int, view: View) -> nn.Module:
    arguments: dict[str, Any] = {"num_classes": classes, "in_chans": 1, **network.arguments}
    if not timm.is_model(network.name):
        close = difflib.get_close_matches(network.name, timm.list_models(), 8, 0.5)
        near = ", ".join(close) or "none, see timm.list_models()"
        raise UsageError(f"timm has no network {network.name!r}; near it: {near}")
    if network.weights is not None:
        if not network.weights.exists():
            raise DataError(f"{network.weights} is missing: pretrained weights of {network.name}")
        arguments |= {
            "pretrained": True,
            "pretrained_cfg_overlay": {"file": str(network.weights), "num_classes": -1},
        }
    # Transformers fix the size of their input when they are made; others have no such argument.
    size = {"img_size": (view.height, view.width)}
    created = _accepted(network.name, arguments | size) or _accepted(network.name, arguments)
    if created is None:
        raise UsageError(f"timm's {network.name} does not take the arguments {network.arguments}")
    patch = getattr(getattr(created, "patch_embed", None), "patch_size", 1)
    height = patch[0] if isinstance(patch, tuple) else patch
    if height > network.reduction and "patch_size" not in network.arguments:
        # Its positions belong to its patches, so smaller ones need a network made for them.
        finer = arguments | size | {"patch_size": network.reduction}
        created = _accepted(network.name, finer) or created
    return created


def _accepted(name: str, arguments: dict[str, Any]) -> nn.Module | None:
    try:
        created: nn.Module = timm.create_model(name, **arguments)
    except TypeError:
        return None
    return created


def undo_downsampling(network: nn.Module, view: View, reduction: int) -> None:
    """Sets the strides of the first downsampling layers to one until ``reduction`` is reached.

    Layers that see a feature map of the same height belong to one step (the two paths of a residual
    block do), and change together. Only convolutions and poolings with a stride are changed, so a
    network that reduces its input otherwise is left as it is.

    Args:
        network: changed in place.
        view: the size of its input.
        reduction: input height over height of the last feature map, at most.

    Raises:
        UsageError: the network cannot run on such a view.
    """
    while True:
        steps, error = _strided_layers(network, view)
        total = math.prod(stride for stride, _ in steps.values())
        if total <= reduction:
            if error is not None:
                raise UsageError(
                    f"{type(network).__name__} of timm cannot take a view of {view.height} x "
                    f"{view.width} pixels at reduction {reduction}: {error}; change the view, "
                    "reduction or arguments"
                ) from error
            return
        _, layers = steps[max(steps)]
        for layer in layers:
            layer.stride = 1 if isinstance(layer.stride, int) else (1, 1)
            # A kernel as large as its stride had no padding: patches side by side now overlap.
            if (
                isinstance(layer, nn.Conv2d)
                and layer.padding == (0, 0)
                and layer.kernel_size[0] > 1
            ):
                layer.padding = (layer.kernel_size[0] // 2, layer.kernel_size[1] // 2)


def _strided_layers(
    network: nn.Module, view: View
) -> tuple[dict[int, tuple[int, list[Any]]], Exception | None]:
    """The layers with a vertical stride, by the height of the map they see, with that stride.

    Of a network that fails on the view, since a map shrinks to nothing, the layers up to there.
    """
    seen: dict[int, tuple[int, list[Any]]] = {}

    def note(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        stride = layer.stride if isinstance(layer.stride, int) else layer.stride[0]
        if stride > 1:
            height = inputs[0].shape[2]
            largest, layers = seen.get(height, (1, []))
            seen[height] = (max(largest, stride), [*layers, layer])

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    hooks = [
        layer.register_forward_pre_hook(note)
        for layer in network.modules()
        if isinstance(layer, kinds)
    ]
    training = network.training
    network.eval()
    failure: Exception | None = None
    try:
        with torch.no_grad():
            network(torch.zeros(1, 1, view.height, view.width))
    except (RuntimeError, AssertionError) as error:
        failure = error
    finally:
        for hook in hooks:
            hook.remove()
        network.train(training)
    return seen, failure
