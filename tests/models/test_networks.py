"""Every architecture a row of params.yaml can name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.utils import Extractor
from safetensors.torch import save_file
from tiny import SCRIPTS, tiny_jpeg
from torch import Tensor, nn

from pipeline import params
from pipeline.data.view import decode, fit
from pipeline.errors import DataError, UsageError
from pipeline.models import ocr
from pipeline.models.build import ScriptClassifier, build, describe
from pipeline.models.ocr import OcrTeacher
from pipeline.models.timm import TimmTeacher, undo_downsampling
from pipeline.params import Architecture, Cnn, Crnn, Ocr, Timm, View

VIEW = View(height=32, width=128)
SMALL = View(height=16, width=32)
NETWORKS: list[Architecture] = [
    Cnn(architecture="cnn", channels=(4,)),
    Cnn(architecture="cnn", channels=(4, 8, 8, 8, 8)),
    Crnn(architecture="crnn", channels=(4, 8), hidden=4),
    Crnn(architecture="crnn", channels=(4, 4, 8, 8, 8, 8), hidden=4, layers=2),
    Ocr(architecture="ocr", depth=0.1, hidden=8),
    Timm(architecture="timm", name="mobilenetv3_small_050"),
]
TIMM = {
    "resnet18": nn.Conv2d,
    "regnety_002": nn.Conv2d,
    "convnext_atto": nn.Conv2d,
    "mobilenetv3_small_050": nn.Conv2d,
    "efficientnet_lite0": nn.Conv2d,
    "vit_tiny_patch16_224": nn.Conv2d,
}


def images(view: View, count: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 255 * torch.rand(count, 1, view.height, view.width, generator=generator)


def timm_row(name: str, **changes: Any) -> Timm:
    return Timm.model_validate({"architecture": "timm", "name": name, **changes})


def reduction_of(model: nn.Module, view: View) -> int:
    """How many rows of the view become one of the lowest map that a layer sees or makes."""
    heights: list[int] = []

    def note(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[3] > 1:
            heights.append(output.shape[2])

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        model.eval()(images(view, 1))
    for hook in hooks:
        hook.remove()
    return view.height // min(heights)


@pytest.mark.parametrize("network", NETWORKS, ids=describe)
@pytest.mark.parametrize("view", [VIEW, SMALL], ids=["32x128", "16x32"])
def test_a_network_gives_a_logit_for_every_script_of_every_image(
    network: Architecture, view: View
) -> None:
    model = build(network, 5, view, pretrained=False)
    logits = model(images(view, 3))
    assert logits.shape == (3, 5)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("network", NETWORKS, ids=describe)
def test_every_weight_of_a_network_is_trained(network: Architecture) -> None:
    model = build(network, 3, SMALL, pretrained=False)
    logits = model(images(SMALL, 8))
    torch.autograd.backward(nn.functional.cross_entropy(logits, torch.arange(8) % 3))
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("network", NETWORKS, ids=describe)
def test_the_answer_for_an_image_does_not_hang_on_its_batch(network: Architecture) -> None:
    model = build(network, 3, SMALL, pretrained=False).eval()
    batch = images(SMALL, 4)
    with torch.no_grad():
        torch.testing.assert_close(model(batch)[2:3], model(batch[2:3]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", NETWORKS[:3], ids=describe)
def test_brightness_and_contrast_change_almost_nothing(network: Architecture) -> None:
    torch.manual_seed(0)
    model = build(network, 3, SMALL, pretrained=False).eval()
    words = np.stack(
        [fit(decode(tiny_jpeg(script, 0), "x"), SMALL)[None] for script in SCRIPTS for _ in "ab"]
    )
    plain = torch.from_numpy(words).float()
    with torch.no_grad():
        before = model(plain)
        change = (model(0.5 * plain + 90) - before).abs().max()
        difference = (before[0] - before[2]).abs().max()
    assert float(change) < 0.1 * float(difference)


@pytest.mark.parametrize("network", NETWORKS, ids=describe)
def test_light_text_on_dark_is_the_same_to_a_network_as_dark_on_light(
    network: Architecture,
) -> None:
    torch.manual_seed(0)
    model = build(network, 3, SMALL, pretrained=False).eval()
    word = torch.full((1, 1, 16, 32), 180.0)
    word[..., 4:12, 8:14] = 60
    shown = ScriptClassifier(nn.Identity())(255 - word)
    assert shown[0, 0, 8, 10] < 0 < shown[0, 0, 0, 0], "text comes out as the darker of the two"
    with torch.no_grad():
        torch.testing.assert_close(model(255 - word), model(word), rtol=1e-4, atol=1e-5)


def test_an_image_of_one_colour_gives_finite_logits() -> None:
    model = build(NETWORKS[1], 3, SMALL).eval()
    assert torch.isfinite(model(torch.full((2, 1, 16, 32), 200.0))).all()


def test_a_classifier_hands_on_images_of_mean_zero_and_deviation_one() -> None:
    seen = ScriptClassifier(nn.Identity())(images(VIEW, 3))
    torch.testing.assert_close(seen.mean((1, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std((1, 2, 3)), torch.ones(3), atol=0.05, rtol=0)


def test_the_student_of_the_default_parameters_stays_small() -> None:
    settings = params.load(Path(__file__).parents[2] / "params.yaml")
    model = build(settings.models["student"].network, len(settings.data.classes), settings.view)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 250_000


def test_the_assistant_reads_columns_in_order() -> None:
    """Its LSTM tells a word from its mirror image even where the convolutions cannot."""
    torch.manual_seed(0)
    model = build(Crnn(architecture="crnn", channels=(4, 8), hidden=8), 3, SMALL).eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight[..., :] = layer.weight.mean(3, keepdim=True)
        word = images(SMALL, 1)
        assert not torch.allclose(model(word), model(word.flip(3)), atol=1e-4)


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("reduction", [4, 8, 16])
def test_a_timm_network_is_brought_to_the_reduction(name: str, reduction: int) -> None:
    model = build(timm_row(name, reduction=reduction), 3, VIEW)
    assert reduction_of(model, VIEW) <= reduction
    assert reduction_of(model, VIEW) > reduction // 4, "no more is undone than is needed"


@pytest.mark.parametrize("name", TIMM)
def test_a_timm_network_of_a_small_view_learns(name: str) -> None:
    model = build(timm_row(name, reduction=8), 3, View(height=16, width=16)).train()
    logits = model(images(View(height=16, width=16), 4))
    torch.autograd.backward(logits.logsumexp(1).mean())
    assert logits.shape == (4, 3)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_reduction_that_is_there_already_changes_nothing() -> None:
    network = timm_row("resnet18", reduction=32)
    strides = [m.stride for m in build(network, 3, VIEW).modules() if isinstance(m, nn.Conv2d)]
    assert strides.count((2, 2)) == 7  # the stem, and two paths of each of three stages


def test_the_two_paths_of_a_residual_block_change_together() -> None:
    model = build(timm_row("resnet18", reduction=8), 3, VIEW)
    strides = {
        name.removeprefix("network.network."): layer.stride
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d)
    }
    undone = [strides[f"layer{stage}.0.conv1"] for stage in (2, 3, 4)]
    assert undone == [strides[f"layer{stage}.0.downsample.0"] for stage in (2, 3, 4)]
    assert undone == [(2, 2)] * 3, "the stem's two are the first to go"


def test_undoing_leaves_the_networks_mode_and_no_hooks_behind() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.MaxPool2d(2))
    undo_downsampling(network.train(), VIEW, 2)
    assert network.training
    assert all(not layer._forward_pre_hooks for layer in network.modules())
    assert network(images(VIEW, 1)).shape == (1, 2, 16, 64)


def test_a_name_that_timm_does_not_know_is_refused_with_names_like_it() -> None:
    with pytest.raises(UsageError, match=r"no network 'resnet19'.*resnet18"):
        build(timm_row("resnet19"), 3, VIEW)


def test_arguments_reach_timm_and_unknown_ones_are_refused() -> None:
    wide = build(
        timm_row("vit_tiny_patch16_224", arguments={"embed_dim": 48, "depth": 1}), 3, SMALL
    )
    assert sum(p.numel() for p in wide.parameters()) < 100_000
    with pytest.raises(UsageError, match=r"resnet18 does not take .*'no_such': 1"):
        build(timm_row("resnet18", arguments={"no_such": 1}), 3, VIEW)


def test_a_reduction_that_a_network_cannot_have_is_refused() -> None:
    row = timm_row("vit_tiny_patch16_224", reduction=8, arguments={"patch_size": 16})
    with pytest.raises(UsageError, match=r"32 x 128 pixels at reduction 8.*change the view"):
        build(row, 3, VIEW)


def test_a_timm_network_starts_from_a_local_file_of_weights(tmp_path: Path) -> None:
    row = timm_row("mobilenetv3_small_050")
    torch.manual_seed(1)
    model = build(row, 3, SMALL)
    assert isinstance(model.network, TimmTeacher)
    saved = model.network.network.state_dict()
    save_file(saved, tmp_path / "weights.safetensors")
    torch.manual_seed(2)
    again = build(timm_row(row.name, weights=str(tmp_path / "weights.safetensors")), 3, SMALL)
    assert isinstance(again.network, TimmTeacher)
    found = again.network.network.state_dict()
    assert torch.equal(found["conv_stem.weight"], saved["conv_stem.weight"])


def test_what_came_pretrained_is_known_and_the_head_is_not_among_it(tmp_path: Path) -> None:
    row = timm_row("mobilenetv3_small_050")
    whole = build(row, 3, SMALL)
    assert isinstance(whole.network, TimmTeacher)
    save_file(whole.network.network.state_dict(), tmp_path / "weights.safetensors")
    given = timm_row(row.name, weights=str(tmp_path / "weights.safetensors"))
    for network, head in ((given, "network.network.classifier"), (NETWORKS[4], "network.head")):
        model = build(network, 3, SMALL)
        slow = set(map(id, model.pretrained))
        fresh = {name for name, value in model.named_parameters() if id(value) not in slow}
        assert fresh == {name for name, _ in model.named_parameters() if name.startswith(head)}
    assert whole.pretrained == ()


def test_missing_weights_of_a_timm_network_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.safetensors is missing"):
        build(timm_row("resnet18", weights=str(tmp_path / "gone.safetensors")), 3, VIEW)


@pytest.mark.parametrize("depth", [0.2, 0.75])
def test_the_ocr_backbone_computes_what_its_onnx_file_does(depth: float, tmp_path: Path) -> None:
    weights = ocr.weights_file()
    assert weights is not None, "rapidocr is one of this project's requirements"
    teacher = OcrTeacher(Ocr(architecture="ocr", depth=depth, hidden=8), 3).eval()
    teacher.load_pretrained()
    graph = onnx.load(weights)
    depthwise = [
        node
        for node in graph.graph.node
        if node.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]
    cut = depthwise[len(teacher.blocks)].input[0]  # what goes into the first block not kept
    backbone = Extractor(graph).extract_model(["x"], [cut])
    backbone.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(backbone, tmp_path / "cut.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "cut.onnx")
    for height, width in ((48, 96), (32, 128), (33, 65)):
        shown = torch.randn(2, 1, height, width, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            ours = teacher.blocks(teacher.stem(shown.expand(-1, 3, -1, -1)))
        (theirs,) = session.run([cut], {"x": shown.expand(-1, 3, -1, -1).contiguous().numpy()})
        assert float((ours - torch.from_numpy(theirs)).abs().max()) < 1e-3
        assert float(ours.std()) > 0.01


def test_without_rapidocr_the_ocr_teacher_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ocr, "weights_file", lambda: None)
    row = Ocr(architecture="ocr", depth=0.1, hidden=8)
    with pytest.raises(DataError, match="rapidocr, which is not installed"):
        build(row, 3, VIEW)
    build(row, 3, VIEW, pretrained=False)


def test_a_deeper_ocr_teacher_keeps_more_of_the_backbone() -> None:
    shallow, deep = (
        sum(
            p.numel()
            for p in build(
                Ocr(architecture="ocr", depth=depth, hidden=8), 3, VIEW, pretrained=False
            ).parameters()
        )
        for depth in (0.1, 0.5)
    )
    assert deep > 2 * shallow
