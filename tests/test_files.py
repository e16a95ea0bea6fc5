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
