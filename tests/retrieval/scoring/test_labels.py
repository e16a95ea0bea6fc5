import pytest

from nl3d.retrieval.scoring.labels import read_labels


def table(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_reads_a_manifest_without_its_frames(tmp_path):
    path = table(
        tmp_path,
        "\ufeffpath, pid, camid, tracklet, part, frame\n"
        "nowhere/1.jpg, 0007, 1, t1, query, 0\n"
        "nowhere/2.jpg, 0007, 1, t1, query, 1\n"
        "nowhere/1.jpg, 0007, 1, t1, gallery, 0\n"
        "nowhere/3.jpg, -1, 2, t2, gallery, 0\n"
        "nowhere/4.jpg, ann, 2, t3, train, 0\n",
    )
    found = read_labels(path)
    assert found.has_parts
    assert [tuple(row) for row in found.rows if row.part != "train"] == [
        ("query", "t1", 7, 1, "7", "1", None), ("gallery", "t1", 7, 1, "7", "1", None),
        ("gallery", "t2", -1, 2, "-1", "2", None),
    ]  # fmt: skip
    assert [row.name for row in found.rows if row.part == "train"] == ["t3"]


def test_a_short_table_is_enough(tmp_path):
    found = read_labels(table(tmp_path, "path,pid\nb,3\na,4\n"))
    assert not found.has_parts
    assert [row[:6] for row in found.rows] == [("", "b", 3, None, "3", None), ("", "a", 4, None, "4", None)]
    assert {row.clothes for row in found.rows} == {None}


@pytest.mark.parametrize(
    ("pids", "not_people", "numbers"),
    [
        (["5", "-1", "0000"], (-1,), [5, -1, 0]),
        (["7.0", "-1.0", "07"], (-1,), [7, -1, 7]),
        (["bob", "ann", "-1"], (-1,), [2, 1, -1]),
        (["bob", "ann", "-1", "0000"], (-1, 0), [2, 1, -1, 0]),
        (["bob", "ann", "-1"], (-1, 1), [3, 2, -1]),
        (["-1", "-1"], (-1,), [-1, -1]),
    ],
)
def test_people_with_names_get_no_number_of_junk(tmp_path, pids, not_people, numbers):
    rows = "".join(f"t{place},{pid},east{place % 2}\n" for place, pid in enumerate(pids))
    found = read_labels(table(tmp_path, "tracklet,pid,camid\n" + rows), not_people=not_people)
    assert [row.pid for row in found.rows] == numbers
    assert [row.camid for row in found.rows] == [1 + place % 2 for place in range(len(pids))]
    assert [row.camera for row in found.rows] == [f"east{place % 2}" for place in range(len(pids))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have the columns .* got none"),
        ("name,pid\na,1\n", r"columns tracklet or path, pid in its first line, got 'name', 'pid'"),
        ("tracklet,camid\na,1\n", "got 'tracklet', 'camid'"),
        ("tracklet,pid\n", "at least one row below its header, got none"),
        ("tracklet,pid\na,1\nb\n", "table.csv, line 3: pid must not be empty"),
        ("tracklet,pid,camid\na,1,\n", "line 2: camid must not be empty"),
        ("tracklet,pid,part\na,1,test\n", "line 2: part must be train, query or gallery, got 'test'"),
        ("tracklet,pid\na,1\na,2\n", "line 3: tracklet 'a' must be of one person .* pid '2' .* after '1' .* on line 2"),
        (
            "tracklet,pid\na,1\nb,nan\n",
            "table.csv, line 3: pid: label must .* got 'nan', which stands for a missing value",
        ),
        ("tracklet,pid,part\na,1,query\na,2,query\n", r"after '1' and '' on line 2$"),
        ("tracklet,pid,camid\na,1,1\na,1,2\n", "got pid '1' and camid '2' after '1' and '1' .*; a part column tells"),
    ],
)
def test_refuses_in_one_sentence(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_labels(table(tmp_path, text))


def test_refuses_what_is_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"table of labels '.*none.csv' does not exist"):
        read_labels(tmp_path / "none.csv")
    path = tmp_path / "noise.csv"
    path.write_bytes(b"\x93NUMPY\x00\xff")
    with pytest.raises(ValueError, match=r"noise.csv, line 1: a table must be text in UTF-8"):
        read_labels(path)
