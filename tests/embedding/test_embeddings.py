import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nl3d.embedding.embeddings import Embeddings
from tests.embedding.people import embeddings


@pytest.mark.parametrize("labelled", [False, True])
def test_comes_back_as_it_was_saved(tmp_path, labelled):
    labels = {"pids": torch.tensor([4, 4, 2]), "camids": torch.tensor([0, 1, 1])} if labelled else {}
    first = embeddings(torch.randn(3, 7), metadata={"model": "tiny", "weights": "none"}, **labels)
    first.save(tmp_path / "people.safetensors")
    second = Embeddings.load(tmp_path / "people.safetensors")
    for name in ("embeddings", "track_ids", "frame_ranges", "pids", "camids"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    assert second.names == first.names
    assert second.metadata == first.metadata
    assert [path.name for path in tmp_path.iterdir()] == ["people.safetensors"]


def test_the_file_is_plain_safetensors(tmp_path):
    embeddings(torch.randn(2, 3)).save(tmp_path / "people.safetensors")
    with safe_open(tmp_path / "people.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"embeddings", "track_ids", "frame_ranges"}
        assert json.loads(file.metadata()["names"]) == ["t0", "t1"]
        assert file.get_tensor("embeddings").dtype == torch.float32
        assert file.get_tensor("track_ids").dtype == file.get_tensor("frame_ranges").dtype == torch.int64


def test_a_file_that_exists_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "people.safetensors"
    embeddings(torch.zeros(1, 2)).save(path)
    with pytest.raises(FileExistsError, match="exists already; choose another name"):
        embeddings(torch.ones(1, 2)).save(path)
    assert Embeddings.load(path).embeddings.sum() == 0
    embeddings(torch.ones(1, 2)).save(path, overwrite=True)
    assert Embeddings.load(path).embeddings.sum() == 2


def test_selects_by_name_in_the_order_given():
    people = embeddings(torch.arange(6.0).view(3, 2), pids=torch.tensor([7, 8, 9]))
    chosen = people.select(["t2", "t0"])
    assert chosen.embeddings.tolist() == [[4, 5], [0, 1]]
    assert chosen.pids.tolist() == [9, 7]
    assert chosen.track_ids.tolist() == [3, 1]
    with pytest.raises(ValueError, match="unknown tracklet 't7'; choose from: t0, t1, t2"):
        people.select(["t7"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embeddings": torch.zeros(3)}, r"embeddings must be \(N, D\), got \(3,\)"),
        ({"track_ids": torch.zeros(2)}, "track_ids must have one row for each of the 3 names"),
        ({"frame_ranges": torch.zeros(3, 3)}, r"frame_ranges must have one row .* got \(3, 3\)"),
        ({"pids": torch.zeros(4)}, "pids must have one row"),
        ({"names": ("a", "b", "a")}, "names must differ from each other"),
        ({"embeddings": torch.tensor([[0.0], [1.0], [float("inf")]])}, "must be finite, .* for tracklet 't2'"),
    ],
)
def test_refuses_what_does_not_fit(fields, message):
    good = embeddings(torch.zeros(3, 2))
    given = {name: getattr(good, name) for name in ("embeddings", "track_ids", "frame_ranges", "names")}
    with pytest.raises(ValueError, match=message):
        Embeddings(**{**given, **fields})


def test_refuses_files_that_are_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; nl3d embed writes it"):
        Embeddings.load(tmp_path / "none.safetensors")
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match=r"'.*other.safetensors' is no safetensors file"):
        Embeddings.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(
        ValueError, match="must be written by nl3d embed, but it lacks embeddings, frame_ranges, track_"
    ):
        Embeddings.load(path)
    people = embeddings(torch.zeros(1, 2))
    save_file({name: getattr(people, name) for name in ("embeddings", "track_ids", "frame_ranges")}, path)
    with pytest.raises(ValueError, match="but it lacks names"):
        Embeddings.load(path)
    save_file(
        {"embeddings": torch.zeros(2, 2), "track_ids": people.track_ids, "frame_ranges": people.frame_ranges},
        path,
        metadata={"names": '["a"]'},
    )
    with pytest.raises(ValueError, match=r"other.safetensors': embeddings must have one row"):
        Embeddings.load(path)
