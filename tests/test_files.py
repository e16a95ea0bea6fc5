import os
import signal
import socket
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from nl3d.files import check_output, replacing

WRITE = """
import sys, torch
from nl3d.files import write_safetensors
tensors = {"b": torch.arange(6.0).view(2, 3).T, "a": torch.zeros(3, dtype=torch.int64), "none": torch.zeros(0)}
write_safetensors(sys.argv[1], tensors, {name: name * 2 for name in "zyxwvu"})
"""


def test_same_bytes_from_every_process(tmp_path):
    contents = set()
    for number in range(3):
        path = tmp_path / f"{number}.safetensors"
        subprocess.run([sys.executable, "-c", WRITE, str(path)], check=True)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    tensors = load_file(path)
    torch.testing.assert_close(tensors["b"], torch.arange(6.0).view(2, 3).T)
    assert tensors["a"].dtype == torch.int64
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", **{name: name * 2 for name in "zyxwvu"}}


def test_nothing_half_written(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def break_off():
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        break_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(path) as unfinished:
        unfinished.write_text("new")
    assert path.read_text() == "new"


def test_check_output_refuses(tmp_path):
    taken = tmp_path / "taken"
    taken.touch()
    with pytest.raises(FileExistsError, match="exists already"):
        check_output(taken, overwrite=False)
    assert check_output(taken, overwrite=True) == taken
    with pytest.raises(FileNotFoundError, match="folder that exists"):
        check_output(tmp_path / "no" / "file", overwrite=False)
    with pytest.raises(IsADirectoryError, match="must be a file"):
        check_output(tmp_path, overwrite=True)


def test_an_input_is_never_an_output(tmp_path):
    table, frames, other = tmp_path / "table.csv", tmp_path / "frames", tmp_path / "other.png"
    (frames / "t").mkdir(parents=True)
    picture = frames / "t" / "0001.JPG"
    for path in (table, picture, other):
        path.touch()
    (tmp_path / "link.csv").symlink_to(table)
    (tmp_path / "hard.csv").hardlink_to(table)
    for output in (table, tmp_path / "link.csv", tmp_path / "hard.csv", picture):
        with pytest.raises(ValueError, match=r"must not replace an input, '.*(table.csv|frames)'; choose another name"):
            check_output(output, overwrite=True, inputs=(None, table, frames, tmp_path / "none"))
    assert check_output(other, overwrite=True, inputs=(table, frames)) == other
    assert check_output(frames / "out.safetensors", overwrite=True, inputs=(frames,))
    with pytest.raises(ValueError, match=r"output 'o.npy' must end in .npz, .csv, which is its format, got '.npy'"):
        check_output("o.npy", overwrite=True, suffixes=(".npz", ".csv"))


def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "link", tmp_path / "socket", "/dev/null"):
            with pytest.raises(ValueError, match="must be a regular file, got a device, a pipe or a socket"):
                check_output(path, overwrite=True)


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "file", tmp_path / "link"
    link.symlink_to(target)
    for text in ("new", "newer"):
        with replacing(check_output(link, overwrite=True)) as unfinished:
            unfinished.write_text(text)
        assert link.is_symlink()
        assert target.read_text() == text
    link.unlink()
    link.symlink_to(tmp_path / "nowhere" / "file")
    with pytest.raises(FileNotFoundError, match=r"folder that exists, got '.*nowhere'"):
        check_output(link, overwrite=False)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "file") as unfinished:
            unfinished.touch()
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


HANG = """
import sys, time
from pathlib import Path
from nl3d.files import replacing
with replacing(sys.argv[1]) as unfinished:
    unfinished.write_text("theirs" * 99)
    print("ready", flush=True)
    sys.stdin.read(1)
"""


def test_what_killed_processes_left_is_removed_and_what_living_ones_write_is_not(tmp_path):
    path = tmp_path / f"{'x' * 240}.bin"
    writers = []
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", HANG, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout.readline() == "ready\n"
        writers.append(writer)
    assert len(list(tmp_path.iterdir())) == 3
    for writer in (writers[0], writers[2]):
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert len(list(tmp_path.iterdir())) == 3
    with replacing(path, durable=True) as unfinished:
        unfinished.open("ab").write(b"mine")
    assert path.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2  # the other is still being written
    writers[1].communicate("\n")
    assert path.read_text() == "theirs" * 99
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"output '.*in\\udce9.pt' must have a path in UTF-8"):
        check_output(tmp_path / "in\udce9.pt", overwrite=False)
