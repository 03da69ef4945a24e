"""What a trained student does, seen from outside: what must not matter to it, and what must."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.compute import Compute
from pipeline.data.generate import generate
from pipeline.data.loader import Batch
from pipeline.data.shards import read_index
from pipeline.inference import Ask, asker, load_as_they_are, view_of
from pipeline.models.folder import load_model
from pipeline.params import Params, load, parse
from pipeline.prepare import prepare
from pipeline.statistics import wilson
from pipeline.train.run import train_run

pytestmark = pytest.mark.slow

TOP = Path(__file__).parents[1]
RUN = "student-alone"


def small(root: Path) -> Params:
    """The project's own parameters, with fewer words and a minute of training."""
    content = load(TOP / "params.yaml").model_dump(mode="json")
    content["generate"] |= {"train": 2000, "validation": 200, "test": 600}
    content["data"] |= {"root": str(root)}
    content["models"]["student"]["training"] |= {"epochs": 16}
    return parse(content, "params.yaml, made small")


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ask, tuple[str, ...], Batch]:
    """A trained student, its scripts, and the test words, which it has not seen."""
    folder = tmp_path_factory.mktemp("behaviour")
    params = small(folder / "words.zip")
    shards, models = folder / "shards", folder / "models"
    generate(params.generate, params.data.root, workers=2)
    prepare(params, shards, folder / "audit.json")
    compute = Compute(workers=0, loaders=1, threads=1, storage=str(folder / "checkpoints"))
    train_run(params, RUN, compute, shards=shards, models=models)
    model, info = load_model(models / RUN)
    batches = list(load_as_they_are(shards, read_index(shards), "test", view_of(info)))
    words = Batch(
        torch.cat([batch.images for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
        [key for batch in batches for key in batch.keys],
        {},
    )
    return asker(model, torch.device("cpu")), info.scripts, words


def agreement(ask: Ask, words: Tensor, changed: Tensor) -> float:
    """The share of words of which a student says the same before and after a change."""
    return float((ask(words).argmax(1) == ask(changed).argmax(1)).float().mean())


def shifted(words: Tensor, right: int, down: int) -> Tensor:
    """Words moved by some pixels; what comes in continues the edge."""
    height, width = words.shape[2:]
    padded = functional.pad(words, (2, 2, 2, 2), mode="replicate")
    return padded[:, :, 2 - down : 2 - down + height, 2 - right : 2 - right + width]


def test_every_script_is_recognised_above_chance(
    student: tuple[Ask, tuple[str, ...], Batch],
) -> None:
    ask, scripts, words = student
    said = ask(words.images.float()).argmax(1)
    for label, script in enumerate(scripts):
        of_script = words.labels == label
        hits, count = int((said[of_script] == label).sum()), int(of_script.sum())
        assert count == 60
        assert wilson(hits, count).low > 100 / len(scripts), f"{script}: {hits} of {count}"


@pytest.mark.parametrize(("gain", "offset"), [(0.6, 0), (0.6, 90), (0.3, 40)])
def test_brightness_and_contrast_do_not_matter(
    student: tuple[Ask, tuple[str, ...], Batch], gain: float, offset: float
) -> None:
    ask, _, words = student
    images = words.images.float()
    assert agreement(ask, images, gain * images + offset) > 0.97


def test_light_words_on_dark_are_read_like_dark_ones_on_light(
    student: tuple[Ask, tuple[str, ...], Batch],
) -> None:
    ask, _, words = student
    images = words.images.float()
    assert agreement(ask, images, 255 - images) > 0.99


@pytest.mark.parametrize(("right", "down"), [(2, 0), (-2, 0), (0, 2), (0, -2), (2, 2)])
def test_two_pixels_of_shift_cost_little_and_do_not_change_what_it_is_sure_of(
    student: tuple[Ask, tuple[str, ...], Batch], right: int, down: int
) -> None:
    ask, _, words = student
    plain, moved = words.images.float(), shifted(words.images.float(), right, down)
    before, after = ask(plain), ask(moved)
    cost = (before.argmax(1) == words.labels).float() - (after.argmax(1) == words.labels).float()
    assert float(cost.mean()) < 0.05
    sure = before.softmax(1).amax(1) > 0.9
    assert int(sure.sum()) > 100
    assert agreement(ask, plain[sure], moved[sure]) > 0.95


def test_an_upright_word_is_read_better_than_one_upside_down(
    student: tuple[Ask, tuple[str, ...], Batch],
) -> None:
    """What does matter: a student that ignored the shapes would do as well on these."""
    ask, _, words = student
    images = words.images.float()
    upright = (ask(images).argmax(1) == words.labels).float().mean()
    turned = (ask(images.flip(2, 3)).argmax(1) == words.labels).float().mean()
    assert upright > turned + 0.15
