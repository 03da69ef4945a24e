"""What is kept of an export: how the ONNX models compare with the trained one."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

EXPORT_FILE: Final = "export.json"


class Int8(BaseModel):
    """The model in 8 bits on the test split.

    Attributes:
        accuracy: percent.
        decisions_equal: test images that it and the trained model give the same script.
        latency_ms: median of one image on one CPU thread, in onnxruntime.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    accuracy: float
    decisions_equal: int
    bytes: int
    latency_ms: float


class Exported(BaseModel):
    """How the ONNX model compares with the trained one on the test split; kept as export.json.

    Attributes:
        largest_difference: of any logit, absolute.
        decisions_equal: test images that both give the same script.
        latency_ms_onnx: median of one image on one CPU thread, in onnxruntime.
        opset: the version of the ONNX operators that it needs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    largest_difference: float
    decisions_equal: int
    test_images: int
    onnx_bytes: int
    latency_ms_onnx: float
    opset: int
    int8: Int8
