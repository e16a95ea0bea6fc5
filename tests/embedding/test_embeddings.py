import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import nl3d
from nl3d.embedding import embeddings as module
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
    labels = {"people": ("ann", "-1"), "pids": torch.tensor([4, -1]), "cameras": ("2", "3")}
    embeddings(torch.randn(2, 3), names=("a", "ü"), **labels).save(tmp_path / "people.safetensors")
    with safe_open(tmp_path / "people.safetensors", framework="pt") as file:
        columns = {"embeddings", "track_ids", "frame_ranges", "pids", "camids", "names", "people"}  # cameras are camids
        assert {key.removesuffix("_utf8").removesuffix("_ends") for key in file.keys()} == columns
        assert bytes(file.get_tensor("names_utf8").tolist()) == "aü".encode()
        assert file.get_tensor("names_ends").tolist() == [1, 3]
        assert bytes(file.get_tensor("people_utf8").tolist()) == b"ann-1"
        assert file.get_tensor("embeddings").dtype == torch.float32
        assert file.get_tensor("track_ids").dtype == file.get_tensor("frame_ranges").dtype == torch.int64
        assert file.metadata() == {"format": "pt", "content": "nl3d embeddings"}


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize(
    "labels",
    [
        {"people": ("ann", None, "7"), "cameras": ("0", "x", "x")},
        {"people": (None, None, "-1"), "camids": torch.tensor([2, 2, 3])},
        {"people": ("9223372036854775808", "7", "ann"), "frame_ranges": None},
        {"people": ("3.5", "a" * 70_000, "ü"), "pids": torch.tensor([4, 5, 6])},
    ],
)
def test_text_comes_back_in_every_format(tmp_path, suffix, labels):
    names = ("in\udce9/1", 'ü\n"', "")
    first = embeddings(torch.randn(3, 2), names=names, metadata={"network": "aa", "notes": '{"a": 1}'}, **labels)
    first.save(tmp_path / f"people{suffix}")
    second = Embeddings.load(tmp_path / f"people{suffix}")
    for name in ("names", "people", "cameras", "metadata", "has_names"):
        assert getattr(second, name) == getattr(first, name), name
    for name in ("embeddings", "pids", "camids", "frame_ranges", "track_ids"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


def test_labels_and_numbers_complete_each_other():
    people = embeddings(torch.zeros(3, 1), people=("bob", "-1", "0"), camids=torch.tensor([5, 6, 5]))
    assert people.pids.tolist() == [1, -1, 0]  # a name gets none of the numbers of junk and distractors
    assert people.cameras == ("5", "6", "5")
    assert embeddings(torch.zeros(1, 1)).people is None
    assert embeddings(torch.zeros(2, 1), people=("a", None)).pids is None
    with pytest.raises(ValueError, match=r"people must have one row for each of the 2 embeddings, got \(1,\)"):
        embeddings(torch.zeros(2, 1), people=("a",))


def test_files_of_the_first_form_are_read(tmp_path):
    tensors = {"embeddings": torch.eye(2), "track_ids": torch.arange(2), "frame_ranges": torch.ones(2, 2).long()}
    metadata = {"names": '["a", "b"]', "content": "nl3d embeddings", "network": "aa"}
    save_file({**tensors, "pids": torch.tensor([7, -1])}, tmp_path / "old.safetensors", metadata)
    read = Embeddings.load(tmp_path / "old.safetensors")
    assert (read.names, read.people, read.cameras, read.metadata) == (("a", "b"), ("7", "-1"), None, {"network": "aa"})


@pytest.mark.parametrize("name", ["people.npy", "people.pt", "people"])
def test_the_suffix_is_the_format(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in .safetensors, .npz, .parquet, .csv, which is its format, got"):
        embeddings(torch.zeros(1, 1)).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def opened(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 3 * 4)  # four rows
    given = embeddings(torch.randn(10, 3), pids=torch.arange(10) % 3, metadata={"network": "aa"})
    given.save(tmp_path / "people.safetensors")
    return given, Embeddings.open(tmp_path / "people.safetensors")


def test_an_opened_file_is_read_block_by_block(opened):
    given, read = opened
    for people in (given, read):
        assert [start for start, _ in people.blocks()] == [0, 4, 8]
        assert torch.equal(torch.cat([block for _, block in people.blocks()]), given.embeddings)
        assert torch.equal(people.embeddings, given.embeddings)
        for rows in ([9, 0, 4, 4], [1, 3], [], range(2, 9)):
            places = rows if isinstance(rows, range) else torch.tensor(rows, dtype=torch.int64)
            assert torch.equal(people.rows(places), given.embeddings[[*rows]])
    assert (read.names, read.metadata, read.camids, len(read)) == (given.names, given.metadata, None, 10)
    assert torch.equal(read.pids, given.pids)
    chosen, expected = read.select(["t7", "t2"]), given.select(["t7", "t2"])
    assert torch.equal(chosen.embeddings, expected.embeddings)
    assert torch.equal(chosen.pids, expected.pids)
    with pytest.raises(ValueError, match="unknown tracklet 'x'"):
        read.select(["x"])


@pytest.mark.parametrize("names", [None, ["t9", "t1"]])
def test_an_opened_gallery_is_ranked_as_one_in_memory(opened, names):
    given, read = opened
    for query, gallery in ((read, read), (given, read), (read, given)):
        found = nl3d.rank(query, gallery, top=6, names=names)
        expected = nl3d.rank(given, given if query is gallery else embeddings(given.embeddings), top=6, names=names)
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.distances, expected.distances)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_is_read_as_float32_and_double_stays(tmp_path, opened, dtype):
    given, _ = opened
    vectors = given.embeddings.to(dtype)
    save_file({"embeddings": vectors}, tmp_path / "other.safetensors")
    read = Embeddings.open(tmp_path / "other.safetensors")
    expected = vectors if dtype == torch.float64 else vectors.float()
    assert torch.equal(read.embeddings, expected)
    assert torch.equal(read.rows([3]), expected[3:4])
    assert read.names == tuple(map(str, range(1, 11)))
    assert not read.has_names


def test_vectors_that_are_not_finite_are_named(tmp_path):
    path = tmp_path / "people.safetensors"
    embeddings(torch.ones(3, 2), names=("a", "b", "c")).save(path)
    content = path.read_bytes()
    place = content.index(np.ones(6, "<f4").tobytes())
    path.write_bytes(content[: place + 12] + np.float32("nan").tobytes() + content[place + 16 :])
    read = Embeddings.open(path)
    for call in (lambda: list(read.blocks()), lambda: read.rows([2, 1]), lambda: Embeddings.load(path)):
        with pytest.raises(ValueError, match="must be finite, got NaN or infinite values for tracklet 'b'"):
            call()
    path.write_bytes(content[:place])
    with pytest.raises(ValueError, match="ends before its last row"):
        list(read.blocks())


def test_prints_one_line_and_escaped_html(tmp_path):
    people = embeddings(
        torch.zeros(12, 3), names=tuple(f"<b>{row}" for row in range(12)), people=("ann",) * 11 + (None,),
        metadata={"model": "m", "weights": "w", "output": "features"},
    )  # fmt: skip
    assert repr(people) == "Embeddings(12 x 3 float32, 1 people, m/w/features)"
    people.save(tmp_path / "p.safetensors")
    opened = repr(Embeddings.open(tmp_path / "p.safetensors"))
    assert opened.startswith("Embeddings(12 x 3 float32, 1 people, m/w/features, in '")
    assert "\n" not in opened
    html = people._repr_html_()
    assert "<td>&lt;b&gt;9</td><td>ann</td><td></td><td>1-19</td>" in html
    assert "<b>" not in html
    assert html.count("<tr>") == 11


def test_to_pandas_has_a_column_per_number(monkeypatch):
    people = embeddings([[1.0, 2.0]], people=("ann",), cameras=("3",))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="to_pandas needs pandas; install it with: pip install pandas"):
        people.to_pandas()
    monkeypatch.undo()
    pytest.importorskip("pandas")
    row = people.to_pandas().iloc[0].to_dict()
    assert row == {"tracklet": "t0", "person": "ann", "camera": "3", "track_id": 1, "first_frame": 1, "last_frame": 10,
                   0: 1.0, 1: 2.0}  # fmt: skip


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
        ({"track_ids": torch.zeros(2)}, "track_ids must have one row for each of the 3 embeddings"),
        ({"frame_ranges": torch.zeros(3, 3)}, r"frame_ranges must have one row .* got \(3, 3\)"),
        ({"pids": torch.zeros(4)}, "pids must have one row"),
        ({"names": ("a", "b", "a")}, "names must differ from each other, got 'a' more than once"),
        ({"embeddings": torch.tensor([[0.0], [1.0], [float("inf")]])}, "must be finite, .* for tracklet 't2'"),
    ],
)
def test_refuses_what_does_not_fit(fields, message):
    good = embeddings(torch.zeros(3, 2))
    given = {name: getattr(good, name) for name in ("embeddings", "track_ids", "frame_ranges", "names")}
    with pytest.raises(ValueError, match=message):
        Embeddings(**{**given, **fields})


def test_refuses_files_that_are_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; nl3d embed writes one"):
        Embeddings.load(tmp_path / "none.safetensors")
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match=r"'.*other.safetensors' must hold embeddings, but is text"):
        Embeddings.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="must hold either 'embeddings' or 'features', got 'weight'"):
        Embeddings.load(path)
    for tensors, names, message in (
        ({"embeddings": torch.zeros(2, 2)}, '["a"]', r"names of '.*' must be \(2,\), one row for each embedding"),
        ({"embeddings": torch.zeros(2, 2)}, '["a", "a"]', "names must differ"),
        ({"embeddings": torch.zeros(2, 2).int()}, '["a", "b"]', r"must be floating point \(N, D\), got I32 \[2, 2\]"),
        ({"features": torch.zeros(1, 1), "names_utf8": torch.zeros(2, dtype=torch.uint8),
          "names_ends": torch.tensor([3])}, "", "ends of texts must ascend and lie within their bytes"),
        ({"features": torch.zeros(2, 1), "names_utf8": torch.zeros(2, dtype=torch.uint8),
          "names_ends": torch.tensor([2, 1])}, "", "ends of texts must ascend and lie within their bytes"),
    ):  # fmt: skip
        save_file(tensors, path, metadata={"names": names} if names else {})
        with pytest.raises(ValueError, match=message):
            Embeddings.load(path)
