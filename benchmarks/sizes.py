"""All networks of params.yaml: parameters, multiply-accumulates, latency."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from pipeline.cost import count_macs, median_ms, model_latency_ms
from pipeline.models.build import build, describe
from pipeline.models.folder import NORMALISATION, InputSize, ModelInfo
from pipeline.onnx_model import onnx_asker, to_int8, to_onnx
from pipeline.params import Architecture, Params
from pipeline.runs import find, vary

WIDTHS = (0.33, 0.7, 2.2)
"""How many times the student's channels make its family: about 25 k, 100 k and 1 M parameters."""


def compare_sizes(params: Params) -> dict[str, Any]:
    """One of each model of params.yaml, untrained: latency does not depend on the weights."""
    scripts = params.data.classes
    view = params.view
    found = {}
    for name, network in _networks(params).items():
        model = build(network, len(scripts), view, pretrained=False).eval()
        info = ModelInfo(
            run=name,
            role="student",
            network=network,
            scripts=scripts,
            input=InputSize(channels=1, height=view.height, width=view.width),
            normalisation=NORMALISATION,
            teachers={},
            data_source=params.data.source,
            data_version="",
            parameters={},
            code_version="",
            metrics={},
        )
        content = to_onnx(model, info).SerializeToString()
        drawn = torch.Generator().manual_seed(0)
        image = 255 * torch.rand((1, 1, view.height, view.width), generator=drawn)
        asks = {
            kind: onnx_asker(one, threads=1)
            for kind, one in (("onnx", content), ("int8", to_int8(content, [image])))
        }
        found[name] = {
            "network": describe(network),
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "macs": count_macs(model, view),
            "latency_ms": model_latency_ms(model, view),
            **{f"latency_ms_{kind}": median_ms(partial(ask, image)) for kind, ask in asks.items()},
        }
    return found


def _networks(params: Params) -> dict[str, Architecture]:
    networks = {name: row.network for name, row in params.models.items()}
    alone = find(params, "student-alone")
    if "channels" in alone.network.model_dump():
        networks |= {f"student x{w:g}": vary(alone, {"width": w}).network for w in WIDTHS}
    return networks
