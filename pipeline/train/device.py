"""What the machine at hand can do: device, precision, the place among other workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import UsageError


@dataclass(frozen=True)
class Worker:
    """One process of a data-parallel training; the only one, unless a process group is up.

    Attributes:
        rank: its number.
        world_size: how many there are.
        device: where it computes.
        loaders: loader processes it starts; 0 loads in its own.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    loaders: int = 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with its gradients averaged over all workers."""
        if self.world_size == 1:
            return model
        return DistributedDataParallel(
            model,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            # A batch norm's statistics are no part of a step, and those of the first are taken.
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
        )

    def of_the_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The first worker's tensors, on each of them: a batch norm's statistics differ."""
        if self.world_size == 1:
            return dict(tensors)
        shared = {
            name: value.detach().clone(memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
        for value in shared.values():
            distributed.broadcast(value, 0)
        return shared

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all workers, on each of them."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values


def default_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The type that matrix products and convolutions are computed in; None leaves fp32.

    Args:
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        device: where.

    Raises:
        UsageError: the device cannot train in that precision.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if precision == "fp16":
        if device.type != "cuda":
            raise UsageError("training.precision fp16 needs a GPU; use bf16, fp32 or auto")
        return torch.float16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    # Without these instructions bf16 is emulated, and slower than fp32.
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("amx_bf16") or able.get("avx512_bf16") else None
