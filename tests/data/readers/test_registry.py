import pytest

from nl3d.data import register_reader
from nl3d.data.readers import registry
from nl3d.data.readers.tree import read_tree
from nl3d.training.data import read_dataset
from tests.data.layouts import write_tracklets
from tests.training.toys import toy_config


@pytest.fixture(autouse=True)
def readers(monkeypatch):
    monkeypatch.setattr(registry, "READERS", dict(registry.READERS))
    monkeypatch.setattr("nl3d.training.data.READERS", registry.READERS)


def config(root, **options):
    return toy_config(root=str(root), dataset="mine", num_pids=2, data_args={}, **options)


def test_a_registered_reader_is_found_by_name(tmp_path):
    write_tracklets(tmp_path, {"train/5/1/a": 1, "train/6/1/a": 1})
    with pytest.raises(ValueError, match=r"dataset must be one of walkers, mars, .*manifest, got 'mine'"):
        read_dataset(config(tmp_path))
    register_reader("mine", read_tree)
    register_reader("mine", read_tree)  # as a module does that is imported twice
    assert read_dataset(config(tmp_path)).num_train_pids == 2
    with pytest.raises(ValueError, match="split must be 0 for mine, which has one, got 1"):
        read_dataset(config(tmp_path, split=1))


def test_a_reader_with_splits_is_told_which(tmp_path):
    write_tracklets(tmp_path, {"0/train/5/1/a": 1, "1/train/6/1/a": 1, "1/train/7/1/a": 1})
    register_reader("mine", lambda root, split: read_tree(f"{root}/{split}"), splits=True)
    assert tuple(read_dataset(config(tmp_path, split=1)).train_labels) == ("6", "7")


@pytest.mark.parametrize("name", ["mars", "walkers"])
def test_names_are_given_once(name):
    with pytest.raises(ValueError, match=f"reader '{name}' must have a name that is free"):
        register_reader(name, read_tree)
