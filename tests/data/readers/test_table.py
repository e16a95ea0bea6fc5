import pytest

from nl3d.data.readers.table import Table

COLUMNS = ("path", "pid", "note")


def write(tmp_path, content, encoding="utf-8"):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def read(path):
    table = Table(path, what="table")
    table.require(("path", "pid"))
    return list(table.rows(COLUMNS))


def rows(path, **options):
    return list(Table(path, what="table").rows(COLUMNS, **options))


@pytest.mark.parametrize(
    "content",
    [
        "path,pid,note\na.png,3,x\nb.png,-1,y\n",
        "\ufeffpath,pid,note\r\na.png,3,x\r\nb.png,-1,y\r\n",
        "path,pid,note\ra.png,3,x\rb.png,-1,y",
        " Path , PID,Note\n a.png ,3.0 ,\tx\nb.png,-1.0,y",
        '"path","pid","note"\n"a.png","0003","x"\n"b.png", "-1", "y"\n',
        "note,other,pid,path\nx,,3,a.png\ny,z,-1,b.png\n",
    ],
    ids=["plain", "excel", "mac", "blanks", "quoted", "order"],
)
def test_one_table_in_every_form(tmp_path, content):
    assert rows(write(tmp_path, content)) == [(2, ["a.png", "3", "x"]), (3, ["b.png", "-1", "y"])]


def test_lines_keep_their_numbers_beside_empty_ones(tmp_path):
    path = write(tmp_path, "path,pid\n\na.png,1\n,\n  \nb.png\n")
    assert rows(path) == [(3, ["a.png", "1", ""]), (6, ["b.png", "", ""])]
    with pytest.raises(ValueError, match=r"t.csv, line 6: pid must not be empty"):
        rows(path, filled=("path", "pid"))


def test_cells_in_quotation_marks(tmp_path):
    path = write(tmp_path, 'path,pid,note\n"a,""1"".png",1, "x, y"\n"",2,""""\n')
    assert rows(path) == [(2, ['a,"1".png', "1", "x, y"]), (3, ["", "2", '"'])]


@pytest.mark.parametrize(
    "row",
    ['"a.png,1', 'a.png,"1', 'a"b.png,1', 'a.png,1"', '"a"b.png,1', '"a.png" ,1', '"a\nb.png",1', '"a""b.png,1', '"'],
)
@pytest.mark.parametrize("many", [0, 9000])
def test_quotation_marks_must_be_closed(tmp_path, row, many):
    path = write(tmp_path, f"path,pid\n{row}\n" + "b.png,2\n" * many)
    with pytest.raises(ValueError, match=r"t.csv, line 2: quotation marks must enclose a whole cell and be closed"):
        rows(path)


def test_cells_may_be_long(tmp_path):
    long = "x" * 200_000
    assert rows(write(tmp_path, f"path,note\na,{long}\n")) == [(2, ["a", "", long])]
    with pytest.raises(ValueError, match=r"t.csv, line 2: a line must be CSV: field larger than field limit"):
        rows(write(tmp_path, f'path,note\na,"{long}"\n'))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path\na.png\n".encode("utf-16"), r"table '.*t.csv' must be text in UTF-8, but is UTF-16"),
        ("path\na.png\n".encode("utf-16-le"), r"t.csv, line 1: a table must be text in UTF-8"),
        ("path\nb.png\n\u5f20.png\n".encode("gbk"), r"t.csv, line 3: a table must be text in UTF-8"),
        ("path\nb.png\n\xe9.png\n".encode("latin-1"), r"t.csv, line 3: a table must be text in UTF-8"),
        (b"path\nb.png\na\0.png\n", r"t.csv, line 3: a table must be text in UTF-8"),
        ("path\n" + "b.png\n" * 100_000 + "\xe9.png\n", r"t.csv, line 100002: a table must be text in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0", r"t.csv, line 1: a table must be text in UTF-8"),
    ],
    ids=["utf-16", "utf-16-le", "gbk", "latin-1", "nul", "late", "png"],
)
def test_other_encodings_are_named_with_their_line(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        rows(write(tmp_path, content, "latin-1"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "table '.*t.csv' must have the columns path, pid in its first line, got none"),
        ("a.png,3\n", "got 'a.png', '3'$"),
        ("path;pid\na.png;3\n", r"got 'path;pid'; its columns are separated by ';', separate them by commas"),
        ("path\tpid\na.png\t3\n", r"its columns are separated by '\\t', separate them by commas"),
        ("path,pid,Path\na,1,b\n", "must name each column once, got 'path' twice"),
        ("path,pid\n", "must hold at least one row below its header, got none"),
        ("path,pid\na,1\nb,c.png,2\n", r"line 3: a row must have at most 2 cells, as the first line has, got 3; put"),
        ("path,pid\na,1,\n", r"line 2: a row must have at most 2 cells"),
        ("path,pid\na,nan\n", r"line 2: pid: label must be .* got 'nan', which stands for a missing value"),
    ],
)
def test_refusals(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, content))


def test_either_of_two_columns(tmp_path):
    table = Table(write(tmp_path, "path,pid\n"), what="table")
    table.require(("tracklet or path", "pid"))
    with pytest.raises(ValueError, match="must have the columns tracklet or name in its first line"):
        table.require(("tracklet or name",))


def test_unnamed_columns_may_repeat(tmp_path):
    assert rows(write(tmp_path, ",path,\n0,a.png,x\n")) == [(2, ["a.png", "", ""])]


def test_backslashes_of_paths_alone_become_slashes(tmp_path):
    assert rows(write(tmp_path, "path,note,pid\na\\b.png,c\\d,e\\f\n")) == [(2, ["a/b.png", "e\\f", "c\\d"])]


def test_a_missing_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"list '.*none.csv' does not exist"):
        Table(tmp_path / "none.csv", what="list")
