import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import nl3d
from nl3d.embedding import stored
from nl3d.embedding.embeddings import Embeddings
from nl3d.embedding.stored import StoredEmbeddings
from tests.embedding.people import embeddings


@pytest.fixture
def people(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "BLOCK_BYTES", 4 * 3 * 4)  # four rows
    given = embeddings(torch.randn(10, 3), pids=torch.arange(10) % 3, metadata={"network": "aa"})
    given.save(tmp_path / "people.safetensors")
    return given, StoredEmbeddings(tmp_path / "people.safetensors")


def test_reads_what_was_saved_block_by_block(people):
    given, read = people
    assert [start for start, _ in read.blocks()] == [0, 4, 8]
    assert torch.equal(torch.cat([block for _, block in read.blocks()]), given.embeddings)
    assert torch.equal(stored.all_vectors(read), given.embeddings)
    for rows in ([9, 0, 4, 4], [1, 3], []):
        assert torch.equal(read.vectors(torch.tensor(rows, dtype=torch.int64)), given.embeddings[rows])
    assert (read.names, read.metadata, read.camids, len(read)) == (given.names, given.metadata, None, 10)
    assert torch.equal(read.pids, given.pids)
    assert torch.equal(read.frame_ranges, given.frame_ranges)
    chosen, expected = read.select(["t7", "t2"]), given.select(["t7", "t2"])
    assert torch.equal(chosen.embeddings, expected.embeddings)
    assert torch.equal(chosen.pids, expected.pids)
    with pytest.raises(ValueError, match="unknown tracklet 'x'"):
        read.select(["x"])


@pytest.mark.parametrize("names", [None, ["t9", "t1"]])
def test_a_stored_gallery_is_ranked_as_one_in_memory(people, names):
    given, read = people
    for query, gallery in ((read, read), (given, read), (read, given)):
        found = nl3d.rank(query, gallery, top=6, names=names)
        expected = nl3d.rank(given, given if query is gallery else embeddings(given.embeddings), top=6, names=names)
        assert torch.equal(found.indices, expected.indices)
        torch.testing.assert_close(found.distances, expected.distances, atol=1e-3, rtol=0)
        assert found.table() == nl3d.rank(query, gallery, top=6, names=names).table()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_as_float32(tmp_path, people, dtype):
    given, _ = people
    vectors = given.embeddings.to(dtype)
    tensors = {"embeddings": vectors, "track_ids": given.track_ids, "frame_ranges": given.frame_ranges}
    save_file(tensors, tmp_path / "half.safetensors", {"names": '["' + '","'.join(given.names) + '"]'})
    assert torch.equal(stored.all_vectors(StoredEmbeddings(tmp_path / "half.safetensors")), vectors.float())


def test_refuses_other_files(tmp_path):
    path = tmp_path / "file.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist; nl3d embed writes it"):
        StoredEmbeddings(path)
    path.write_bytes(b"noise" * 99)
    with pytest.raises(ValueError, match="is no safetensors file"):
        StoredEmbeddings(path)
    save_file({"embeddings": torch.zeros(2, 2)}, path)
    with pytest.raises(ValueError, match="must be written by nl3d embed, but it lacks frame_ranges, track_ids"):
        StoredEmbeddings(path)
    tensors = {"track_ids": torch.arange(2), "frame_ranges": torch.ones(2, 2).long()}
    save_file({"embeddings": torch.zeros(2, 2).int(), **tensors}, path, {"names": '["a", "b"]'})
    with pytest.raises(ValueError, match=r"must hold floating-point embeddings \(N, D\), got I32 \[2, 2\]"):
        StoredEmbeddings(path)
    save_file({"embeddings": torch.zeros(2, 2), **tensors}, path, {"names": '["a", "a"]'})
    with pytest.raises(ValueError, match=r"file.safetensors': names must differ"):
        StoredEmbeddings(path)


def test_vectors_that_are_not_finite_are_named(tmp_path):
    path = tmp_path / "people.safetensors"
    Embeddings(torch.ones(3, 2), torch.arange(3), torch.ones(3, 2).long(), ("a", "b", "c")).save(path)
    content = path.read_bytes()
    place = content.index(np.ones(6, "<f4").tobytes())
    path.write_bytes(content[: place + 12] + np.float32("nan").tobytes() + content[place + 16 :])
    read = StoredEmbeddings(path)
    for call in (lambda: list(read.blocks()), lambda: read.vectors(torch.tensor([2, 1]))):
        with pytest.raises(ValueError, match="must be finite, got NaN or infinite values for tracklet 'b'"):
            call()
    path.write_bytes(content[:-4])
    with pytest.raises(ValueError, match="ends before its last row"):
        list(read.blocks())
