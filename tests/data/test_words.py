import numpy as np
import pytest

from pipeline.data import words
from pipeline.scripts import BY_NAME, NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_script_has_words_enough_all_its_own(name: str) -> None:
    vocabulary = words.vocabularies()[name]
    assert len(vocabulary) >= 2000
    assert list(vocabulary) == sorted(set(vocabulary))
    assert all(BY_NAME[name].holds(word) for word in vocabulary)
    assert all(2 <= len(words.clusters(word)) <= 14 for word in vocabulary)


def test_a_word_is_in_one_split_however_it_is_written() -> None:
    assert words.split_of("Delhi", 3) == words.split_of("DELHI", 3) == words.split_of("delhi", 3)
    assert words.split_of("كِتَاب", 3) == words.split_of("كتاب", 3)


def test_every_split_has_words_of_every_script_and_the_seed_moves_them() -> None:
    vocabulary = words.vocabularies()["Telegu"]
    splits = [words.split_of(word, 0) for word in vocabulary]
    assert 0.6 < splits.count("train") / len(splits) < 0.8
    assert min(splits.count("validation"), splits.count("test")) > 200
    assert splits != [words.split_of(word, 1) for word in vocabulary]


def test_clusters_keep_conjuncts_whole() -> None:
    assert words.clusters("स्त्री") == ["स्त्री"]
    assert words.clusters("ಕನ್ನಡ") == ["ಕ", "ನ್ನ", "ಡ"]
    assert words.clusters("word") == list("word")


def test_a_piece_is_one_to_three_clusters_in_a_row() -> None:
    rng = np.random.default_rng(0)
    word = "स्त्रीलिंग"
    found = {words.piece(rng, word) for _ in range(200)}
    parts = words.clusters(word)
    assert found == {
        "".join(parts[start : start + length])
        for length in (1, 2, 3)
        for start in range(len(parts) - length + 1)
    }
    assert words.piece(rng, "क") == "क"


def test_a_word_with_a_number_keeps_some_of_its_letters() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        made = words.numbered(rng, "delhi")
        assert any(letter.isdigit() for letter in made)
        assert "".join(letter for letter in made if letter.isalpha()) in ("del", "delh")


def test_a_blend_is_spelt_from_the_clusters_of_both_words() -> None:
    rng = np.random.default_rng(0)
    first, second = "తెలుగు", "హైదరాబాద్"
    for _ in range(50):
        made = words.clusters(words.blend(rng, first, second))
        assert set(made) <= {*words.clusters(first), *words.clusters(second)}
        assert made[0] == words.clusters(first)[0]
        assert made[-1] == words.clusters(second)[-1]


def test_vowel_points_leave_the_letters_as_they_are() -> None:
    pointed = words.vowelled(np.random.default_rng(0), "مدرسة")
    assert BY_NAME["Arabic"].holds(pointed)
    assert pointed != "مدرسة"
    assert "".join(char for char in pointed if char in "مدرسة") == "مدرسة"
