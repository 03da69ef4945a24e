"""A trained model as one ONNX file, and how it is run."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from torch import Tensor

from pipeline.inference import Ask
from pipeline.models.build import ScriptClassifier
from pipeline.models.folder import ModelInfo

INPUT: Final = "images"
OUTPUT: Final = "logits"


def to_onnx(model: ScriptClassifier, info: ModelInfo) -> onnx.ModelProto:
    """The model as ONNX, its normalisation inside; one model always gives the same bytes.

    The input ``images`` is float32 (batch, 1, H, W), grey values 0 to 255; the output ``logits`` is
    float32 (batch, classes). The metadata say which scripts the logits stand for.

    Args:
        model: on the CPU, in evaluation mode.
        info: what it is.
    """
    # Two images: a batch of one would be taken for a constant.
    example = torch.full((2, 1, info.input.height, info.input.width), 127.0)
    with warnings.catch_warnings():
        # They speak to PyTorch's own developers, of what it traces within itself.
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message="The tensor attributes", category=UserWarning)
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    # The exporter notes where each line of code lies on the disk of whoever exports.
    _strip(proto)
    proto.producer_name, proto.producer_version = "script-distill", info.code_version
    metadata = {
        "run": info.run,
        "scripts": json.dumps(info.scripts),
        "normalisation": f"in the graph: {info.normalisation}",
        "data_source": info.data_source,
        "data_version": info.data_version,
        "generated": json.dumps(info.data_source == "generated"),
    }
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto)
    return proto


class _Shown(CalibrationDataReader):  # type: ignore[misc]
    """Images that the ranges of all feature maps are taken from."""

    def __init__(self, images: Iterable[Tensor]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        """See ONNX Runtime: the next batch."""
        batch = next(self._images, None)
        return None if batch is None else {INPUT: batch.numpy()}


def to_int8(content: bytes, images: Iterable[Tensor]) -> bytes:
    """The same model with convolutions and matrix products in 8 bits; normalisation stays fp32.

    Weights have a scale for each output channel; feature maps one each, from the least and most
    that the images show. Without VNNI (x86-64 before 2019 or so) sums of a few products may
    saturate.

    Args:
        content: an ONNX model, see :func:`to_onnx`.
        images: batches of float images (N, 1, H, W), grey values 0 to 255.
    """
    with tempfile.TemporaryDirectory(prefix="distill-") as folder:
        out = Path(folder) / "model.onnx"
        # It advises, through the root logger, to fold what the exporter has folded already.
        logging.disable(logging.WARNING)
        try:
            quantize_static(
                onnx.load_from_string(content),
                out,
                _Shown(images),
                op_types_to_quantize=["Conv", "Gemm", "MatMul"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            logging.disable(logging.NOTSET)
        proto = onnx.load(out)
    _strip(proto.graph)
    onnx.checker.check_model(proto)
    smaller: bytes = proto.SerializeToString(deterministic=True)
    return smaller


def opset(proto: onnx.ModelProto) -> int:
    """The version of the standard operators that a model needs."""
    return next(int(entry.version) for entry in proto.opset_import if entry.domain == "")


def onnx_asker(content: bytes, threads: int) -> Ask:
    """Asks an ONNX model in onnxruntime, on so many CPU threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def ask(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])

    return ask


def _strip(message: Any) -> None:
    """Clears notes and metadata of a protobuf message and of all messages in it."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _strip(part)
