import json

import pytest

from nl3d.data.readers.splits import Split, draw_splits, drawn_splits, load_splits, save_splits

PEOPLE = [f"person_{number:04d}" for number in range(1, 12)]


def test_splits_are_halves_that_depend_on_the_seed_alone():
    splits = draw_splits(PEOPLE, seed=3)
    assert len(splits) == 10
    for split in splits:
        assert len(split.test) == 5
        assert sorted(split.train + split.test) == PEOPLE
    assert draw_splits(PEOPLE[::-1], seed=3) == splits
    assert draw_splits(PEOPLE, seed=4) != splits
    assert len(set(splits)) == 10


def test_saved_splits_are_read_back(tmp_path):
    splits = draw_splits(PEOPLE, seed=0, num_splits=3)
    save_splits(tmp_path / "s.json", splits)
    assert load_splits(tmp_path / "s.json") == splits
    assert list(tmp_path.iterdir()) == [tmp_path / "s.json"]


def test_the_file_is_the_word_once_it_is_there(tmp_path):
    path = tmp_path / "s.json"
    first = drawn_splits(path, PEOPLE, 0)
    assert first == draw_splits(PEOPLE, 0)
    kept = [Split(tuple(PEOPLE[:6]), tuple(PEOPLE[6:]))]
    save_splits(path, kept)
    assert drawn_splits(path, PEOPLE, 0) == kept
    with pytest.raises(ValueError, match=r"must hold the people of the data set, but 'person_0011'"):
        drawn_splits(path, PEOPLE[:-1], 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "does not parse"),
        ('[{"train": ["a"]}]', "must be JSON of the form"),
        ("[]", "at least one split"),
        ('[{"train": ["a", "b"], "test": ["b"]}]', "people in one half, got 'b' in both"),
        ('[{"train": [], "test": ["b"]}]', "people in both halves"),
    ],
)
def test_broken_split_files(tmp_path, content, message):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_splits(tmp_path / "s.json")


def test_missing_split_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"split file .* does not exist; give a seed to draw splits"):
        load_splits(tmp_path / "s.json")


@pytest.mark.parametrize("people", [["a"], ["a", "a", "b"]])
def test_refuses_people_that_cannot_be_split(people):
    with pytest.raises(ValueError, match="at least two that differ"):
        draw_splits(people, 0)


def test_the_file_is_plain_json(tmp_path):
    save_splits(tmp_path / "s.json", [Split(("a",), ("b",))])
    assert json.loads((tmp_path / "s.json").read_text()) == [{"train": ["a"], "test": ["b"]}]
