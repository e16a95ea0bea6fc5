"""Tables that are indexed and read in parts."""

import numpy as np
import pytest

from nl3d.data.readers.manifest import read_manifest_tracklets
from nl3d.data.readers.table_index import index_table
from nl3d.data.table_source import KEPT, TableSource
from tests.data.pictures import write_jpeg


def write(path, rows, header="path,tracklet,pid,camid", end="\n", encoding="utf-8"):
    path.write_bytes((end.join([header, *rows]) + end).encode(encoding))
    return path


ROWS = [f"f/{t}_{n}.jpg,t{t},{['ann', '', '0007', '-1'][t % 4]},{t % 3}" for t in range(40) for n in range(1 + t % 5)]


def described(tracklet):
    frames = tracklet.frames
    return tracklet.name, tracklet.person, tracklet.camera, frames.folder, frames.names.tolist()


def awkward(rows):
    """Quoted cells, blanks, empty lines and backslashes."""
    rows = [row.replace("f/", "f\\") if place % 2 else row for place, row in enumerate(rows)]
    rows = [row.replace("t7,", '"t,7 ""x""",').replace("t3,", " t3 , ") for row in rows]
    return [line for place, row in enumerate(rows) for line in ([row, "", " , ,"] if place % 9 == 4 else [row])]


@pytest.mark.parametrize("form", ["plain", "windows", "bom", "awkward", "no tracklets", "parts", "parquet", "frames"])
@pytest.mark.parametrize("size", [1, 7, 40])
def test_parts_are_the_whole(tmp_path, form, size):
    path, rows = tmp_path / "people.csv", ROWS
    if form == "awkward":
        rows = awkward(rows)
    if form == "no tracklets":
        rows = [row.replace(",t", ",x,t", 1) for row in rows]
        write(path, rows, "path,note,other,pid,camid")
    elif form == "parts":
        write(path, [f"{row},{part}" for part in ("query", "gallery") for row in rows], "path,tracklet,pid,camid,part")
    elif form == "frames":
        write(path, [f"{row},{99 - place}" for place, row in enumerate(rows)], "path,tracklet,pid,camid,frame")
    else:
        encoding = "utf-8-sig" if form == "bom" else "utf-8"
        write(path, rows, end="\r\n" if form == "windows" else "\n", encoding=encoding)
    if form == "parquet":
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        path = tmp_path / "people.parquet"
        pandas.read_csv(tmp_path / "people.csv", dtype=str).to_parquet(path, row_group_size=11)
    expected = list(map(described, read_manifest_tracklets(path, check_files=False)))
    index = index_table(path)
    assert len(index) == len(expected)
    found = []
    for start in range(0, len(index), size):
        part = range(start, min(start + size, len(index)))
        found += map(described, index.read(part))
        assert list(map(described, index[part].read(range(len(part))))) == found[start:]
    assert found == expected
    assert index.lengths.tolist() == [len(names) for *_, names in expected]
    source = TableSource(index)
    for row in np.random.default_rng(0).permutation(len(index)).tolist():
        assert source.record(row)[:1] + source.record(row)[4:] == expected[row][:3]
    assert len(source.tracklets._blocks) <= KEPT


def test_tables_whose_tracklets_cannot_be_cut_out_are_read_whole(tmp_path):
    path = tmp_path / "people.csv"
    for rows in ([*ROWS, "f/1_9.jpg,t1,,1"], [*ROWS, "folder,t99,,1"], ["", ",t1,1,1"]):
        assert index_table(write(path, rows)) is None
    assert index_table(write(path, ROWS, end="\r")) is None
    path.write_text("\n".join(["path,tracklet,pid,camid", *ROWS[:3]]) + "\n" + "\r".join(ROWS[3:]))
    assert index_table(path) is None
    with pytest.raises(ValueError, match="must have the columns path"):
        index_table(write(path, ROWS, "image,tracklet,pid,camid"))
    with pytest.raises(FileNotFoundError, match=r"manifest '.*none.csv' does not exist"):
        index_table(tmp_path / "none.csv")


def test_errors_name_the_line_of_the_whole_table(tmp_path):
    image, name, _, camera = ROWS[50].split(",")
    path = write(tmp_path / "people.csv", [*ROWS[:50], f"{image},{name},1.5,{camera}", *ROWS[51:]])
    index = index_table(path)
    index.read(range(5))
    with pytest.raises(ValueError, match=r"people.csv, line 52: pid: label must be a whole number or a name, got '1.5"):
        index.read(range(int(name[1:]) - 3, int(name[1:]) + 3))
    path = write(tmp_path / "people.csv", [*ROWS[:50], "\xff", *ROWS[51:]], encoding="latin-1")
    with pytest.raises(ValueError, match=r"people.csv, line 52: a table must be text in UTF-8"):
        read_manifest_tracklets(path, check_files=False)


def test_a_table_that_changes_meanwhile_and_missing_frames_are_refused(tmp_path):
    path = write(tmp_path / "people.csv", ROWS)
    index = index_table(path)
    (tmp_path / "f").mkdir()
    with pytest.raises(FileNotFoundError, match=r"0_0.jpg' does not exist"):
        index.read(range(2), check_files=True)
    for name in ("0_0", "1_0", "1_1"):
        write_jpeg(tmp_path / "f" / f"{name}.jpg")
    assert len(index.read(range(2), check_files=True)) == 2
    write(path, [row for row in ROWS if ",t9," not in row])
    assert index_table(path).digest != index.digest
    with pytest.raises(ValueError, match="must not change while it is read; repeat the command"):
        index.read(range(5, 15))
