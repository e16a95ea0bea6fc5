import subprocess
import sys

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from nl3d.data.readers import matfiles
from nl3d.data.readers.matfiles import read_mat

TABLE = np.array([[1, 2, 3], [4, 5, 6]])


@pytest.fixture
def old(tmp_path):
    savemat(tmp_path / "old.mat", {"table": TABLE.astype(float), "text": "abc"})
    return tmp_path / "old.mat"


@pytest.fixture
def new(tmp_path):
    path = tmp_path / "new.mat"
    with h5py.File(path, "w", userblock_size=512) as file:  # MATLAB puts a header of its own before HDF5's
        file["table"] = TABLE.T.astype(float)
        file.create_group("group")
    return path


def test_reads_both_kinds_alike(old, new):
    for path in (old, new):
        table = read_mat(path, "table")
        assert table.dtype == np.int64
        np.testing.assert_array_equal(table, TABLE)


def test_reads_hdf5_without_matlab_s_header(tmp_path):
    with h5py.File(tmp_path / "plain.mat", "w") as file:
        file["query"] = np.array([[3.0], [1.0]])
    assert read_mat(tmp_path / "plain.mat", "query").tolist() == [[3, 1]]


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no.mat' does not exist"):
        read_mat(tmp_path / "no.mat", "table")


@pytest.mark.parametrize("kind", ["old", "new"])
def test_missing_table_lists_what_is_there(kind, request):
    with pytest.raises(ValueError, match=r"must hold the table 'query', got .*'table'"):
        read_mat(request.getfixturevalue(kind), "query")


def test_other_things_than_tables(old, new):
    with pytest.raises(ValueError, match="table of whole numbers"):
        read_mat(old, "text")
    with pytest.raises(ValueError, match="got a group"):
        read_mat(new, "group")


@pytest.mark.parametrize("content", [b"", b"junk" * 200, b"\x89HDF\r\n\x1a\n" + b"x" * 600])
def test_broken_files_are_named(tmp_path, content):
    (tmp_path / "broken.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken.mat' must be a MATLAB file, but does not parse"):
        read_mat(tmp_path / "broken.mat", "table")


@pytest.mark.parametrize(("kind", "library"), [("old", "scipy"), ("new", "h5py")])
def test_says_how_to_get_the_reader(kind, library, request, monkeypatch):
    path = request.getfixturevalue(kind)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'nl3d\[data\]'"):
        read_mat(path, "table")


@pytest.mark.parametrize("changes", [{176: 14}, {151: 1, 163: 255, 176: 14}, {124: 5, 177: 7}])
def test_files_on_which_scipy_crashes_are_refused(tmp_path, changes):
    """Made by ``python -m tests.fuzz --kinds tracks.mat`` and its like; which of them crash depends on the version."""
    savemat(tmp_path / "text.mat", {"table": "abc"})
    content = bytearray((tmp_path / "text.mat").read_bytes())
    for place, value in changes.items():
        content[place] = value
    (tmp_path / "text.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"text.mat'"):
        read_mat(tmp_path / "text.mat", "table")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", r"its reader crashed on it \(SIGSEGV\)"),
        ("print('a word too early', file=__import__('sys').stderr); raise SystemExit(3)", "a word too early"),
    ],
)
def test_a_reader_that_dies_is_one_sentence(old, tmp_path, monkeypatch, program, said):
    (tmp_path / "program.py").write_text(program)
    monkeypatch.setattr(matfiles, "PROGRAM", tmp_path / "program.py")
    with pytest.raises(ValueError, match=said):
        read_mat(old, "table")


def test_small_files_cannot_ask_for_any_memory(tmp_path):
    with h5py.File(tmp_path / "new.mat", "w") as file:
        file.create_dataset("table", (2**16, 2**16), "u1", chunks=(256, 256))  # 4 GiB of a fill value
    savemat(tmp_path / "old.mat", {"table": np.zeros((300, 2**20), np.uint8)}, do_compression=True)
    for name in ("new.mat", "old.mat"):
        assert (tmp_path / name).stat().st_size < 2**20
        with pytest.raises(ValueError, match=f"{name}' must be a MATLAB file, but would take far more memory"):
            read_mat(tmp_path / name, "table")


def test_reads_in_a_process_that_finds_the_same_packages(old, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("numpy", "scipy", "json"):  # neither the folder nor the environment gets in the way
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    np.testing.assert_array_equal(read_mat(old, "table"), TABLE)


def test_reads_under_limits_that_are_set_already(old):
    code = (
        "import resource, sys; from nl3d.data.readers.matfiles import read_mat\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (50, 50))\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))\n"
        f"print(read_mat({str(old)!r}, 'table').tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(TABLE.tolist())
