"""What one answer of a model costs: multiply-accumulates and milliseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.params import View

RUNS: Final = 100
SECONDS: Final = 1.0
_LEAST_RUNS = 5
_WARM_UP = 3


def count_macs(model: nn.Module, view: View) -> int:
    """Multiply-accumulates of one image: of convolutions, matrix products and LSTMs.

    Args:
        model: on the CPU, in evaluation mode.
        view: the size of its input.
    """
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.mkldnn_rnn_layer: _lstm_flops}
    )
    # A fused attention is not counted; the plain one is the same products.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        model(torch.zeros(1, 1, view.height, view.width))
    return int(counter.get_total_flops()) // 2


def model_latency_ms(model: nn.Module, view: View) -> float:
    """The median time of one image on one CPU thread, in PyTorch.

    Args:
        model: on the CPU, in evaluation mode.
        view: the size of its input.
    """
    image = torch.full((1, 1, view.height, view.width), 127.0)
    with one_thread(), torch.inference_mode():
        return median_ms(lambda: model(image))


def median_ms(call: Callable[[], Any]) -> float:
    """The median milliseconds of a call, after warm-up; it takes about a second at most."""
    for _ in range(_WARM_UP):
        call()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < RUNS and (len(times) < _LEAST_RUNS or time.perf_counter() < end):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes on one CPU thread within."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _lstm_flops(
    inputs: torch.Size, weights: torch.Size, recurrent: torch.Size, *_: Any, **__: Any
) -> int:
    # On the CPU a direction of a layer is one call, which the counter does not know. Its inputs are
    # (steps, images, features), its weights (4 x hidden, features) and (4 x hidden, hidden).
    return 2 * inputs[0] * inputs[1] * (weights.numel() + recurrent.numel())
