from pathlib import Path

import pytest

from pipeline.data import fonts, packages, render, words
from pipeline.errors import DataError
from pipeline.scripts import NAMES, SPLITS


def test_the_packages_that_are_installed_are_those_of_the_manifest() -> None:
    packages.check_installed()


def test_families_of_test_words_are_in_no_other_split_of_any_script() -> None:
    test = {family for name in NAMES for family in fonts.families(name, "test")}
    others = {
        family
        for name in NAMES
        for split in ("train", "validation")
        for family in fonts.families(name, split)
    }
    assert not test & others


@pytest.mark.parametrize("name", NAMES)
def test_about_a_quarter_of_a_scripts_families_draw_its_test_words(name: str) -> None:
    test, train = (len(fonts.families(name, split)) for split in ("test", "train"))
    assert 0.15 <= test / (test + train) <= 0.35


@pytest.mark.parametrize("name", NAMES)
def test_every_family_draws_most_words_of_its_script(name: str) -> None:
    vocabulary = words.vocabularies()[name]
    sample = vocabulary[:: len(vocabulary) // 30]
    for split in SPLITS:
        for family in fonts.families(name, split):
            face = fonts.weights(name, family)[0]
            drawn = [ink for word in sample if (ink := render.draw(face, word)) is not None]
            assert len(drawn) >= 0.4 * len(sample), family
            assert all(ink.max() > 150 and ink.mean() > 10 for ink in drawn), family


def test_a_font_without_the_glyphs_draws_nothing() -> None:
    tamil = fonts.weights("Tamil", "catamaran")[0]
    assert render.draw(tamil, "தமிழ்") is not None
    assert render.draw(tamil, "हिन्दी") is None


def test_a_mark_that_cannot_stand_there_draws_nothing() -> None:
    hindi = fonts.weights("Hindi", "mukta")[0]
    assert render.draw(hindi, "कि") is not None
    assert render.draw(hindi, "िक") is None


def test_spacing_widens_a_word_and_keeps_its_letters() -> None:
    face = fonts.weights("English", "roboto")[0]
    tight, wide = render.draw(face, "word"), render.draw(face, "word", 0.1)
    assert tight is not None
    assert wide is not None
    assert wide.shape[1] > tight.shape[1] + 10
    assert wide.shape[0] == tight.shape[0]
    assert abs(int(wide.sum()) - int(tight.sum())) < 0.02 * tight.sum()


def test_fonts_that_are_missing_are_an_error_that_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package.json").write_text((packages.FOLDER / "package.json").read_text())
    monkeypatch.setattr(packages, "FOLDER", tmp_path)
    with pytest.raises(DataError, match="run: npm ci --prefix pipeline/data/fontsource"):
        packages.check_installed()


def test_another_release_of_a_font_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package.json").write_text('{"dependencies": {"@fontsource/lato": "5.3.0"}}')
    package = tmp_path / "node_modules/@fontsource/lato/package.json"
    package.parent.mkdir(parents=True)
    package.write_text('{"version": "4.0.0"}')
    monkeypatch.setattr(packages, "FOLDER", tmp_path)
    with pytest.raises(DataError, match=r"lato is 4\.0\.0, not 5\.3\.0"):
        packages.check_installed()
