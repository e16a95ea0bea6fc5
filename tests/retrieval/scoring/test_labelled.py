import numpy as np
import pytest
import torch

from nl3d.data.readers.manifest import read_manifest_tracklets
from nl3d.metrics import evaluate
from nl3d.retrieval.scoring.labelled import read_retrieval
from tests.embedding.people import embeddings


def save(tmp_path, name, names, **fields):
    """Embeddings in which row i is (i, i)."""
    rows = torch.arange(float(len(names))).repeat(2, 1).T
    fields = {key: torch.tensor(value) if key.endswith("ids") else value for key, value in fields.items()}
    embeddings(rows, names=tuple(names), **fields).save(tmp_path / name)
    return tmp_path / name


def table(tmp_path, *rows, header="tracklet,pid,camid,part"):
    (tmp_path / "table.csv").write_text("\n".join([header, *rows]) + "\n")
    return tmp_path / "table.csv"


def seen(found):
    """Places, pids and camids of queries, then of the gallery."""
    sides = (found.query, found.q_pids, found.q_camids), (found.gallery, found.g_pids, found.g_camids)
    return [
        (rows[:, 0].tolist(), pids.tolist(), camids if camids is None else camids.tolist())
        for rows, pids, camids in sides
    ]


def test_one_file_is_all_against_all_and_nobody_is_looked_for(tmp_path):
    path = save(tmp_path, "all.safetensors", "abcd", pids=[5, -1, 0, 5], camids=[1, 1, 2, 2])
    everyone = ([0, 1, 2, 3], [5, -1, 0, 5], [1, 1, 2, 2])
    found = read_retrieval(path, distractor_pids=(0,))
    assert seen(found) == [([0, 3], [5, 5], [1, 2]), everyone]
    assert (found.protocol, found.notes) == ("all", ())
    assert seen(read_retrieval(path, path)) == [([0, 2, 3], [5, 0, 5], [1, 2, 2]), everyone]
    assert evaluate(*found.arguments(), ranks=(1,)).num_valid_queries == 2


def test_two_files_are_query_and_gallery(tmp_path):
    query = save(tmp_path, "query.safetensors", "ab", pids=[5, -1], camids=[1, 1])
    gallery = save(tmp_path, "gallery.safetensors", "ab", pids=[-1, 5], camids=[2, 2])
    found = read_retrieval(query, gallery)
    assert seen(found) == [([0, 1], [5, -1], [1, 1]), ([0, 1], [-1, 5], [2, 2])]
    assert found.protocol == "files"


def test_the_table_s_parts_decide_and_its_order_holds(tmp_path):
    labels = table(tmp_path, "c,9,2,gallery", "a,9,1,query", "a,9,1,gallery", "b,x,1,train", "d,-1,3,gallery")
    path = save(tmp_path, "all.safetensors", "abcde", pids=[1] * 5, camids=[1] * 5)
    found = read_retrieval(path, labels=labels)
    assert seen(found) == [([0], [9], [1]), ([2, 0, 3], [9, 9, -1], [2, 1, 3])]
    assert found.protocol == "parts"
    assert found.notes == (f"1 embeddings are not in {str(labels)!r}, such as 'e', and were left out",)


def test_names_may_begin_with_the_part(tmp_path):
    labels = table(tmp_path, "a,9,1,query", "a,8,2,gallery")
    path = save(tmp_path, "all.safetensors", ["gallery/a", "query/a", "a"])
    assert seen(read_retrieval(path, labels=labels)) == [([1], [9], [1]), ([0], [8], [2])]


def test_parts_from_two_files(tmp_path):
    labels = table(tmp_path, "a,9,1,query", "a,9,2,gallery", "b,8,2,gallery")
    query, gallery = save(tmp_path, "query.safetensors", "a"), save(tmp_path, "gallery.safetensors", "ba")
    assert seen(read_retrieval(query, gallery, labels=labels)) == [([0], [9], [1]), ([1, 0], [9, 8], [2, 2])]


def test_a_table_without_parts_labels_what_the_files_hold(tmp_path):
    labels = table(tmp_path, "a,ann,east", "b,bob,west", "c,ann,west", header="tracklet,pid,camid")
    query, gallery = save(tmp_path, "query.safetensors", "a"), save(tmp_path, "gallery.safetensors", "c")
    found = read_retrieval(query, gallery, labels=labels)
    assert seen(found) == [([0], [1], [1]), ([0], [1], [2])]
    assert found.protocol == "files"
    assert found.notes == (
        f"1 tracklets have no embedding, of those in {str(labels)!r}, such as 'b', and were left out",
    )


def test_a_name_in_query_and_gallery_needs_a_part(tmp_path):
    query, gallery = save(tmp_path, "query.safetensors", "ab"), save(tmp_path, "gallery.safetensors", "bc")
    labels = table(tmp_path, "a,9,1", "b,9,2", "c,8,2", header="tracklet,pid,camid")
    with pytest.raises(ValueError, match=r"must have a part column where .* share names, such as 'b'"):
        read_retrieval(query, gallery, labels=labels)


def test_cameras_of_the_file_stand_in_where_the_table_has_none(tmp_path):
    labels = table(tmp_path, "b,7", "a,6", header="path,pid")
    path = save(tmp_path, "all.safetensors", "ab", camids=[3, 4])
    assert seen(read_retrieval(path, labels=labels))[1] == ([0, 1], [6, 7], [3, 4])
    parts = table(tmp_path, "b,6,query", "a,6,gallery", header="path,pid,part")
    assert seen(read_retrieval(path, labels=parts)) == [([1], [6], [4]), ([0], [6], [3])]


def test_takes_the_names_that_a_manifest_s_tracklets_have(tmp_path):
    rows = ("1.jpg,9,1,a,query", "2.jpg,9,2,b,gallery", "1.jpg,9,1,{},gallery", "3.jpg,ann,1,c,train")
    for repeated in ("a", "d"):  # the gallery holds the query under its own name, or not
        lines = [row.format(repeated) for row in rows]
        labels = table(tmp_path, *lines, header="path,pid,camid,tracklet,part")
        names = [tracklet.name for tracklet in read_manifest_tracklets(labels, check_files=False)]
        assert ("query/a" in names) == (repeated == "a")
        path = save(tmp_path, f"{repeated}.safetensors", names)
        assert seen(read_retrieval(path, labels=labels)) == [([0], [9], [1]), ([1, 2], [9, 9], [2, 1])]


def test_rows_without_names_follow_the_table(tmp_path):
    np.save(tmp_path / "all.npy", np.arange(4.0).reshape(4, 1))
    labels = table(tmp_path, "x,9,2,gallery", "y,train me,1,train", "x,9,1,query", "z,8,2,gallery")
    assert seen(read_retrieval(tmp_path / "all.npy", labels=labels)) == [([2], [9], [1]), ([0, 3], [9, 8], [2, 2])]
    np.save(tmp_path / "query.npy", np.ones((1, 1)))
    np.save(tmp_path / "gallery.npy", np.arange(2.0).reshape(2, 1))
    found = read_retrieval(tmp_path / "query.npy", tmp_path / "gallery.npy", labels=labels)
    assert seen(found) == [([1], [9], [1]), ([0, 1], [9, 8], [2, 2])]
    plain = table(tmp_path, "x,9,2", "y,9,1", "z,8,2", "w,8,1", header="tracklet,pid,camid")
    assert seen(read_retrieval(tmp_path / "all.npy", labels=plain))[0] == ([0, 1, 2, 3], [9, 9, 8, 8], [2, 1, 2, 1])


def test_cameras_need_not_be_known_where_they_do_not_count(tmp_path):
    query = save(tmp_path, "query.safetensors", "a", pids=[5])
    gallery = save(tmp_path, "gallery.safetensors", "ab", pids=[5, 6])
    found = read_retrieval(query, gallery, exclude_same_camera=False)
    assert (found.q_camids, found.g_camids) == (None, None)
    with pytest.raises(ValueError, match=r"camids of '.*query.safetensors' must be known"):
        read_retrieval(query, gallery)


def test_refuses_rows_that_would_find_themselves(tmp_path):
    path = save(tmp_path, "all.safetensors", "abc", pids=[5, 5, 6])
    message = "must be on where a tracklet is query and gallery at once, .* got {} of them"
    with pytest.raises(ValueError, match=message.format(3)):
        read_retrieval(path, exclude_same_camera=False)
    labels = table(tmp_path, "a,9,1,query", "a,9,1,gallery", "b,8,2,gallery")
    with pytest.raises(ValueError, match=message.format(1)):
        read_retrieval(path, path, labels=labels, exclude_same_camera=False)


def test_refuses_vectors_of_two_networks(tmp_path):
    query = save(tmp_path, "query.safetensors", "a", metadata={"network": "abc", "output": "features"})
    for metadata, key in (
        ({"network": "abd"}, "network, got features/abc and abd"),
        ({"output": "embedding"}, "output"),
    ):
        gallery = save(tmp_path, f"{key[:3]}.safetensors", "a", metadata=metadata)
        with pytest.raises(ValueError, match=f"query and gallery must come from the same {key}"):
            read_retrieval(query, gallery)


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        ("ab", None, "all.safetensors' must hold pids, or a table of labels must be given, with the"),
        ("a", ["a,9,1,query", "b,9,2,gallery", "c,8,2,gallery"],
         "must hold every gallery tracklet of '.*table.csv', but lacks 2 of 2, such as 'b'; it holds 'a'"),
        ("a", ["a,9,1,query"], "table.csv' must have rows of the part 'gallery', got none"),
        ("abcde", ["a,9,1", "x,9,2"],
         "table.csv' must name every tracklet of .* lacks 4 of 5, such as 'b'; it names 'a', 'x'$"),
        (None, ["a,9,1,query", "b,9,2,gallery"], r"must have one row for each tracklet of '.*table.csv', 2, got 3"),
        (None, ["a,9,1"], "table.csv', 1, got 3"),
        ("twice", ["a,9,1,query", "b,9,2,gallery"], "all.npz': names must differ from each other, got 'a' more"),
    ],
)  # fmt: skip
def test_refuses_what_does_not_fit(tmp_path, names, rows, message):
    path = tmp_path / ("all.npy" if names is None else "all.npz" if names == "twice" else "all.safetensors")
    if names is None:
        np.save(path, np.zeros((3, 2)))
    elif names == "twice":
        np.savez(path, features=np.zeros((2, 2)), names=["a", "a"])
    else:
        save(tmp_path, path.name, names)
    header = "tracklet,pid,camid,part" if rows and rows[0].count(",") == 3 else "tracklet,pid,camid"
    labels = table(tmp_path, *rows, header=header) if rows else None
    with pytest.raises(ValueError, match=message):
        read_retrieval(path, labels=labels)


def test_refuses_two_files_that_nothing_joins(tmp_path):
    labels = table(tmp_path, "a,9,1", "b,9,2", header="tracklet,pid,camid")
    np.save(tmp_path / "query.npy", np.zeros((1, 2)))
    np.save(tmp_path / "gallery.npy", np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"query.npy' must hold names, or the table of labels a part column"):
        read_retrieval(tmp_path / "query.npy", tmp_path / "gallery.npy", labels=labels)
    two = table(tmp_path, "a,9,1,query", "b,9,2,query", "c,9,2,gallery")
    with pytest.raises(ValueError, match=r"in part 'query', 2, got 1"):
        read_retrieval(tmp_path / "query.npy", tmp_path / "gallery.npy", labels=two)


def test_people_with_names_are_one_numbering_in_two_files(tmp_path):
    query = save(tmp_path, "query.safetensors", "ab", people=("cy", "7"), cameras=("x", "y"))
    gallery = save(
        tmp_path, "gallery.safetensors", "abcd", people=("ann", "cy", "-1", "7"), cameras=("y", "y", "x", "x")
    )
    found = read_retrieval(query, gallery)
    assert found.q_pids.tolist() == [2, 7]
    assert found.g_pids.tolist() == [1, 2, -1, 7]
    assert (found.q_camids.tolist(), found.g_camids.tolist()) == ([1, 2], [2, 2, 1, 1])
    result = evaluate(*found.arguments(), ranks=(1,))
    assert (result.num_junk, result.num_valid_queries) == (1, 2)


def test_numbers_and_names_of_people_are_not_compared(tmp_path):
    query = save(tmp_path, "query.safetensors", "ab", people=("-1", "7"), cameras=("1", "1"))
    gallery = save(tmp_path, "gallery.safetensors", "ab", people=("ann", "0"), cameras=("2", "2"))
    with pytest.raises(ValueError, match=r"must have labels of one kind, got '-1' and 'ann'; give one table of labels"):
        read_retrieval(query, gallery)
