from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PARITY = Path(__file__).parents[1] / "parity"


@pytest.fixture
def published(tmp_path):
    """A file as another project publishes it, by the name of its parity fixture, and the path of the parity file."""

    def write(name):
        parity = PARITY / f"{name}.safetensors"
        tensors = {key.removeprefix("ckpt/"): t for key, t in load_file(parity).items() if key.startswith("ckpt/")}
        path = tmp_path / f"{name}.pth"
        torch.save({"state_dict": tensors, "epoch": 1}, path)
        return path, parity

    return write
