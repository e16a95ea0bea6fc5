"""Embeddings as CSV, Parquet and Lance."""

import csv

import numpy as np
import pytest
import torch

import nl3d
from nl3d.embedding import table_files
from nl3d.embedding.embeddings import Embeddings
from tests.embedding.people import embeddings

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

COLUMNS = ("track_ids", "frame_ranges", "names", "pids", "camids", "people", "cameras")


def made(**fields):
    given = {
        "names": ("a,1", 'b"', "ü 3"), "people": ("ann", None, "-1"), "camids": torch.tensor([4, 5, 4]),
        "metadata": {"network": "aa", "output": "features", "notes": '{"x": "y"}'},
        "track_ids": torch.tensor([7, 1, 2]),
    }  # fmt: skip
    return embeddings(torch.randn(3, 5), **{**given, **fields})


def assert_same(found, expected, metadata=None):
    assert torch.equal(found.embeddings, expected.embeddings)
    assert found.embeddings.dtype == expected.embeddings.dtype
    for name in COLUMNS:
        one, other = getattr(found, name), getattr(expected, name)
        assert torch.equal(one, other) if isinstance(other, torch.Tensor) else one == other, name
    assert found.metadata == (expected.metadata if metadata is None else metadata)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".parquet", ".csv"])
@pytest.mark.parametrize(
    "fields", [{}, {"people": ("0", "1", "2"), "camids": None}, {"pids": torch.tensor([5, 6, -1])},
               {"frame_ranges": None, "people": None, "camids": None}],
)  # fmt: skip
def test_what_is_saved_is_read_back(tmp_path, suffix, fields):
    people = made(**fields)
    people.save(tmp_path / f"people{suffix}")
    kept = {"network": "aa", "output": "features"} if suffix == ".csv" else people.metadata
    assert_same(Embeddings.load(tmp_path / f"people{suffix}"), people, kept)
    with pytest.raises(FileExistsError, match="exists already"):
        people.save(tmp_path / f"people{suffix}")
    people.save(tmp_path / f"people{suffix}", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [f"people{suffix}"]


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".parquet", ".csv"])
def test_every_digit_and_type_survives(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("nl3d.embedding.embeddings.BLOCK_BYTES", 4 * 7 * 10)  # ten rows
    monkeypatch.setattr(table_files, "ROWS_PER_GROUP", 4)
    bits = torch.randint(-(2**31), 2**31 - 1, (64, 7), dtype=torch.int32)
    values = bits.view(torch.float32)
    values = torch.where(values.isfinite(), values, torch.tensor(1e-45))
    for vectors in (values, torch.randn(64, 7, dtype=torch.float64), torch.ones(3, 1)):
        people = Embeddings(vectors, names=[f"t{row}" for row in range(len(vectors))])
        people.save(tmp_path / f"people{suffix}", overwrite=True)
        assert_same(Embeddings.load(tmp_path / f"people{suffix}"), people, {})


def test_vectors_of_two_networks_are_not_compared_from_a_csv_file(tmp_path):
    made().save(tmp_path / "one.csv")
    made(metadata={"network": "bb", "output": "features"}).save(tmp_path / "two.csv")
    with pytest.raises(ValueError, match="query and gallery must come from the same network"):
        nl3d.rank(tmp_path / "one.csv", tmp_path / "two.csv")
    rows = [*csv.reader((tmp_path / "one.csv").open()), *list(csv.reader((tmp_path / "two.csv").open()))[1:]]
    with (tmp_path / "both.csv").open("w") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(ValueError, match="rows must be of one network and one output layer, got several"):
        Embeddings.load(tmp_path / "both.csv")


def test_tables_of_pandas_are_read(tmp_path):
    people = made(pids=None)
    people.to_pandas().to_csv(tmp_path / "pandas.csv", index=False)
    found = Embeddings.load(tmp_path / "pandas.csv")
    torch.testing.assert_close(found.embeddings.float(), people.embeddings)
    assert (found.names, found.people, found.cameras) == (people.names, people.people, people.cameras)
    assert torch.equal(found.frame_ranges, people.frame_ranges)
    frame = people.to_pandas()[["tracklet", "person"]]
    frame["embedding"] = [row.numpy() for row in people.embeddings]  # lists of any length, for all that Parquet says
    frame.to_parquet(tmp_path / "pandas.parquet")
    assert torch.equal(Embeddings.load(tmp_path / "pandas.parquet").embeddings, people.embeddings)


def test_a_folder_of_parts_and_a_lance_table_are_read(tmp_path):
    people = made()
    (tmp_path / "people.parquet").mkdir()
    for row in range(3):
        part = people.select([people.names[row]])
        part.save(tmp_path / "people.parquet" / f"{row}.parquet")
    found = Embeddings.open(tmp_path / "people.parquet")
    assert (found.names, found.people) == (people.names, people.people)
    assert torch.equal(found.embeddings, people.embeddings)
    pytest.importorskip("lancedb")
    table_files.write_lance(
        tmp_path / "people.lance", table_files.arrow_batches(people.blocks(), people.columns(), people.metadata)
    )
    assert_same(Embeddings.load(tmp_path / "people.lance"), people)


def write(path, **columns):
    parquet.write_table(pyarrow.table(columns), path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.csv", lambda path: path.write_text("tracklet,0,2\na,1,2\n"), "lacks 1"),
        ("a.csv", lambda path: path.write_text("tracklet,0\na,1,2\n"), "line 2 must have 2 cells, got 3"),
        ("a.csv", lambda path: path.write_text("tracklet,0\na,x\n"), "could not convert string to float"),
        ("a.csv", lambda path: path.write_text("tracklet,0\na,nan\n"), "must be finite, .* for tracklet 'a'"),
        ("a.csv", lambda path: path.write_text('tracklet,0\n"a,1\n'), "unexpected end of data"),
        ("a.csv", lambda path: path.write_bytes(b"tracklet,0\n\xff\xfe,1\n"), "cannot be read: .*can't decode"),
        ("a.parquet", lambda path: path.write_bytes(b"noise"), "cannot be read: "),
        ("a.parquet", lambda path: path.mkdir(), "must hold Parquet files, got none"),
        ("a.parquet", lambda path: write(path, tracklet=["a"]), "have a column 'embedding' of lists, got tracklet"),
        ("a.parquet", lambda path: write(path, embedding=[1.0]), "must hold one list of numbers per row, got double"),
        ("a.parquet", lambda path: write(path, embedding=[[1.0], [1.0, 2.0], [3.0]]), "of one length, got 1 and 2"),
        ("a.parquet", lambda path: write(path, embedding=[[1.0], None]), "must hold one list of numbers per row"),
        ("a.parquet", lambda path: write(path, embedding=[[1], [2]]), "must be floating point"),
        ("a.parquet", lambda path: write(path, embedding=[[1.0, None], [2.0, 3.0]]), "must be finite"),
    ],
)  # fmt: skip
def test_refuses_in_one_sentence(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message) as refusal:
        Embeddings.load(tmp_path / name)
    assert "\n" not in str(refusal.value)


def test_a_parquet_file_that_would_take_far_more_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "ALLOWANCE", 0)
    write(tmp_path / "a.parquet", embedding=[[0.0] * 4000] * 1000)
    with pytest.raises(ValueError, match="its vectors would take 16,000,000 bytes, far more than the file"):
        Embeddings.load(tmp_path / "a.parquet")


def test_labels_of_a_ranking_in_every_form(tmp_path):
    pandas = pytest.importorskip("pandas")
    query = embeddings(torch.tensor([[0.0], [5.0]]), names=("a", "b"))
    gallery = embeddings(torch.tensor([[1.0], [6.0], [9.0]]), names=("x", "y", "z"))
    pairs = {"a": "ann", "b": 7, "x": "ann", "y": 3, "z": None}
    frame = pandas.DataFrame({"tracklet": list(pairs), "pid": list(pairs.values())}).dropna()
    frame.to_csv(tmp_path / "labels.csv", index=False)
    for labels in (
        pairs, frame, tmp_path / "labels.csv", (["ann", "7"], ["ann", 3, None]), [("ann", "07"), ("ann", 3.0, None)],
        (np.array(["ann", "7"]), ("ann", "3", None)),
    ):  # fmt: skip
        ranking = nl3d.rank(query, gallery, top=1, labels=labels)
        assert [ranking.match(row, 0) for row in range(2)] == [True, False]
        ranking = nl3d.rank(query, gallery, top=1, labels=labels, names=["b"])
        assert ranking.match(0, 0) is False
    ranking = nl3d.rank(gallery, gallery, top=1, labels=torch.tensor([4, 4, 5]), names=["z", "x"])
    assert [ranking.match(row, 0) for row in range(2)] == [False, True]
    with pytest.raises(ValueError, match="labels must be one per tracklet, 3, got 2"):
        nl3d.rank(gallery, gallery, labels=["a", "b"])
    with pytest.raises(ValueError, match="one per tracklet, as a pair for query and gallery, 2 and 3, got 5"):
        nl3d.rank(query, gallery, labels=["ann", "7", "ann", "3", "4"])
    with pytest.raises(ValueError, match="must name tracklets of the query, such as 'a'"):
        nl3d.rank(query, gallery, labels={"x": "ann"})
