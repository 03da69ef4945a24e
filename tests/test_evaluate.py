"""Judging, on tiny shards with tiny models."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny import CNN, SCRIPTS, VIEW, tiny_images, tiny_model, tiny_params, tiny_shards

from pipeline import evaluation
from pipeline.calibration import temperature
from pipeline.cost import count_macs, median_ms, model_latency_ms, one_thread
from pipeline.data.view import decode, fit
from pipeline.errors import DataError, UsageError
from pipeline.evaluate import evaluate_folder, evaluate_run
from pipeline.evaluation import Evaluation
from pipeline.inference import answer, asker, load_as_they_are
from pipeline.models.build import build
from pipeline.models.folder import WEIGHTS_FILE, read_info, save_model
from pipeline.params import Crnn
from pipeline.reporting.plots import write_metrics
from pipeline.statistics import wilson

RUN = "student-alone"


def judge(root: Path, run: str = RUN) -> Evaluation:
    return evaluate_run(
        tiny_params(),
        run,
        models=root / "models",
        shards=root / "shards",
        folder=root / "evaluations",
    )


def write_images(folder: Path) -> None:
    for image in tiny_images():
        if image.split == "test":
            path = folder / image.script / f"{image.key}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.read())


def test_the_temperature_is_chosen_by_validation_images_and_only_there(tmp_path: Path) -> None:
    index = tiny_shards(tmp_path / "shards")
    model = tiny_model(tmp_path / "models" / RUN, index, steps=20)
    found = judge(tmp_path).calibration
    assert found is not None
    validation = answer(
        asker(model, torch.device("cpu")),
        load_as_they_are(tmp_path / "shards", index, "validation", VIEW),
    )
    assert found.temperature == pytest.approx(temperature(validation.logits, validation.labels))
    assert sum(one.images for one in found.bins) == 24
    write_images(tmp_path / "words")
    assert evaluate_folder(tmp_path / "models" / RUN, tmp_path / "words").calibration is None


def test_every_number_follows_from_what_the_model_says(tmp_path: Path) -> None:
    index = tiny_shards(tmp_path / "shards")
    model = tiny_model(tmp_path / "models" / RUN, index, steps=2)
    found = judge(tmp_path)
    kept, rows = evaluation.read(tmp_path / "evaluations" / RUN)
    assert kept == found

    images = {image.key: image for image in tiny_images() if image.split == "test"}
    assert {row.key: row.script for row in rows} == {key: i.script for key, i in images.items()}
    confusion = np.zeros((3, 3), int)
    for row in rows:
        view = fit(decode(images[row.key].read(), row.key), VIEW)
        with torch.inference_mode():
            probabilities = model(torch.from_numpy(view)[None, None].float()).softmax(1)[0]
        assert row.predicted == SCRIPTS[int(probabilities.argmax())]
        assert row.probability == pytest.approx(float(probabilities.max()), abs=1e-4)
        given = probabilities[SCRIPTS.index(row.script)]
        assert row.probability_of_script == pytest.approx(float(given), abs=1e-4)
        confusion[SCRIPTS.index(row.script), SCRIPTS.index(row.predicted)] += 1

    # Two steps leave it between chance and certainty, else the numbers below would say little.
    assert 0 < found.correct < found.images == 24
    assert found.confusion == tuple(tuple(row) for row in confusion.tolist())
    assert found.correct == confusion.trace()
    interval = wilson(found.correct, found.images)
    assert found.accuracy == pytest.approx(100 * found.correct / 24)
    assert (found.accuracy_low, found.accuracy_high) == (interval.low, interval.high)
    for place, script in enumerate(SCRIPTS):
        score, right = found.per_script[script], confusion[place, place]
        said = confusion[:, place].sum()
        assert (score.images, score.correct) == (8, right)
        assert score.accuracy == pytest.approx(100 * right / 8, abs=1e-4)
        assert score.precision == pytest.approx(100 * right / max(said, 1), abs=1e-4)
        assert score.f1 == pytest.approx(200 * right / (8 + said), abs=1e-4)
    assert found.macro_f1 == pytest.approx(np.mean([s.f1 for s in found.per_script.values()]))
    assert found.data == evaluation.JudgedData(
        source="generated", split="test", version=index.version
    )
    assert (found.role, found.model, found.seeds) == ("student", "cnn 8-16", (0,))
    assert found.parameters == 36 * 8 + 16 + 9 * 8 * 16 + 32 + 32 * 3 + 3
    assert found.model_bytes == (tmp_path / "models" / RUN / WEIGHTS_FILE).stat().st_size
    assert found.latency_ms > 0


def test_a_trained_model_is_better_than_chance(tmp_path: Path) -> None:
    tiny_model(tmp_path / "models" / RUN, tiny_shards(tmp_path / "shards"), steps=20)
    assert judge(tmp_path).accuracy > 90


def test_a_model_of_other_data_is_refused(tmp_path: Path) -> None:
    other = tiny_shards(tmp_path / "shards", seed=1)
    index = tiny_shards(tmp_path / "shards")
    tiny_model(tmp_path / "models" / RUN, other)
    with pytest.raises(DataError) as caught:
        judge(tmp_path)
    assert other.version[:12] in str(caught.value)
    assert index.version[:12] in str(caught.value)
    assert not (tmp_path / "evaluations").exists()


def test_a_changed_shard_is_refused(tmp_path: Path) -> None:
    index = tiny_shards(tmp_path / "shards")
    tiny_model(tmp_path / "models" / RUN, index)
    path = tmp_path / "shards" / index.of("test")[-1].name
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        judge(tmp_path)


def test_an_unknown_run_and_a_missing_model_are_told_apart(tmp_path: Path) -> None:
    tiny_shards(tmp_path / "shards")
    with pytest.raises(UsageError, match="no run 'student-x'"):
        judge(tmp_path, "student-x")
    with pytest.raises(DataError, match="holds no model"):
        judge(tmp_path)


def test_weights_that_are_not_finite_are_no_opinion(tmp_path: Path) -> None:
    folder = tmp_path / "models" / RUN
    model = tiny_model(folder, tiny_shards(tmp_path / "shards"))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    weights["network.classifier.bias"].fill_(float("nan"))
    save_model(folder, read_info(folder), weights)
    with pytest.raises(DataError, match="24 of 24 images with numbers that are not finite"):
        judge(tmp_path)


def test_a_folder_gives_what_the_same_images_gave_in_shards(tmp_path: Path) -> None:
    tiny_model(tmp_path / "models" / RUN, tiny_shards(tmp_path / "shards"), steps=2)
    write_images(tmp_path / "mine")
    found = evaluate_folder(tmp_path / "models" / RUN, tmp_path / "mine")
    assert found.confusion == judge(tmp_path).confusion
    assert (found.data.source, found.data.split) == ("folder mine", "all")
    assert found.data.version != judge(tmp_path).data.version


def test_training_words_in_a_folder_are_counted_and_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_model(tmp_path / "models" / RUN, tiny_shards(tmp_path / "shards"))
    write_images(tmp_path / "mine" / "Training")
    write_images(tmp_path / "mine" / "Testing")
    found = evaluate_folder(tmp_path / "models" / RUN, tmp_path / "mine")
    assert found.images == 48
    assert "24 of the 48 images lie in folders of training" in caplog.text
    caplog.clear()
    evaluate_folder(tmp_path / "models" / RUN, tmp_path / "mine" / "Testing")
    assert "training" not in caplog.text


def test_dvc_metrics_tell_validation_from_test(tmp_path: Path) -> None:
    tiny_model(tmp_path / "models" / RUN, tiny_shards(tmp_path / "shards"))
    judged = judge(tmp_path)
    write_metrics(tmp_path, tmp_path / "models", [judged])
    expected = {RUN: {"validation": 50.0, "test": round(judged.accuracy, 2)}}
    assert json.loads((tmp_path / "metrics.json").read_text()) == expected


def test_a_folders_version_is_of_its_images(tmp_path: Path) -> None:
    model = tmp_path / "models" / RUN
    tiny_model(model, tiny_shards(tmp_path / "shards"))
    for name in ("a", "b"):
        write_images(tmp_path / name)
    first = evaluate_folder(model, tmp_path / "a").data.version
    assert evaluate_folder(model, tmp_path / "b").data.version == first
    (tmp_path / "b" / "Hindi" / "HIN_000.jpg").unlink()
    assert evaluate_folder(model, tmp_path / "b").data.version != first


def test_a_script_without_images_does_not_pull_the_mean_down(tmp_path: Path) -> None:
    model = tmp_path / "models" / RUN
    tiny_model(model, tiny_shards(tmp_path / "shards"), steps=20)
    write_images(tmp_path / "mine")
    for path in (tmp_path / "mine" / "Hindi").iterdir():
        path.unlink()
    found = evaluate_folder(model, tmp_path / "mine")
    assert found.per_script["Hindi"].images == 0
    shown = [found.per_script[script].f1 for script in ("Bengali", "English")]
    assert found.macro_f1 == pytest.approx(np.mean(shown))


def test_generated_images_are_called_so_whatever_their_folder_is_called(tmp_path: Path) -> None:
    model = tmp_path / "models" / RUN
    tiny_model(model, tiny_shards(tmp_path / "shards"))
    write_images(tmp_path / "cvsi")
    assert evaluate_folder(model, tmp_path / "cvsi").data.source == "folder cvsi"
    (tmp_path / "cvsi" / "GENERATED.json").write_text("{}")
    assert evaluate_folder(model, tmp_path / "cvsi").data.source == "generated"


def test_images_that_cannot_be_read_are_named_and_nothing_is_judged(tmp_path: Path) -> None:
    model = tmp_path / "models" / RUN
    tiny_model(model, tiny_shards(tmp_path / "shards"))
    write_images(tmp_path / "mine")
    cut = tmp_path / "mine" / "Hindi" / "HIN_001.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    (tmp_path / "mine" / "English" / "ENG_002.jpg").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        evaluate_folder(model, tmp_path / "mine")
    lines = str(caught.value).splitlines()
    assert "2 of 24 images cannot be read" in lines[0]
    assert "English/ENG_002.jpg is no image" in lines[1]
    assert "Hindi/HIN_001.jpg is a broken image" in lines[2]


def test_macs_of_a_chain_of_convolutions() -> None:
    model = build(CNN, 3, VIEW).eval()
    assert count_macs(model, VIEW) == 36 * 8 * 8 * 16 + 9 * 8 * 16 * 4 * 8 + 32 * 3


def test_macs_of_an_lstm_are_counted() -> None:
    network = Crnn(architecture="crnn", channels=(8, 16), hidden=5, layers=2)
    convolutions = 36 * 8 * 8 * 16 + 9 * 8 * 16 * 4 * 8
    steps, gates = 8, 4 * 5
    layers = [2 * steps * gates * (inputs + 5) for inputs in (16, 10)]
    expected = convolutions + sum(layers) + (10 + 32) * 3
    assert count_macs(build(network, 3, VIEW).eval(), VIEW) == expected


def test_latency_is_of_one_thread_and_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert model_latency_ms(build(CNN, 3, VIEW).eval(), VIEW) > 0
    assert torch.get_num_threads() == before


def test_a_median_is_of_the_calls_after_warm_up() -> None:
    calls: list[int] = []
    assert 0 <= median_ms(lambda: calls.append(1)) < 1
    assert len(calls) == 103


def test_tiny_images_are_the_same_everywhere() -> None:
    greys = [decode(image.read(), image.origin) for image in tiny_images()]
    again = [decode(image.read(), image.origin) for image in tiny_images()]
    assert all(np.array_equal(one, other) for one, other in zip(greys, again, strict=True))
    contents = {hashlib.sha256(image.read()).hexdigest() for image in tiny_images()}
    assert len(contents) == len(greys) == 84
    assert cv2.imdecode(np.frombuffer(tiny_images()[0].read(), np.uint8), 0) is not None
