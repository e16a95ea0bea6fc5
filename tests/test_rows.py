import pytest
import torch
from safetensors import safe_open

from nl3d.files import write_safetensors, write_safetensors_rows

OTHERS = {"zeta": torch.arange(5), "alpha": torch.arange(10).view(5, 2), "text": torch.arange(7, dtype=torch.uint8)}


@pytest.mark.parametrize("metadata", [{}, {"b": 'ü\n"x"', "a": "1"}])
@pytest.mark.parametrize("others", [OTHERS, {}], ids=["labelled", "alone"])
def test_blocks_give_the_bytes_of_the_whole(tmp_path, others, metadata):
    whole = torch.randn(5, 3)
    write_safetensors(tmp_path / "whole", {**others, "middle": whole}, metadata)
    blocks = (whole[:2], whole[2:2], whole.T.contiguous().T[2:])
    write_safetensors_rows(tmp_path / "blocks", "middle", (5, 3), blocks, others, metadata)
    assert (tmp_path / "blocks").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([torch.zeros(4, 3)], r"must hold 5 rows in all, got 4"),
        ([torch.zeros(5, 2)], r"must be torch.float32 \(N, 3\), got torch.float32 torch.Size\(\[5, 2\]\)"),
        ([torch.zeros(5, 3).double()], r"must be torch.float32 \(N, 3\), got torch.float64"),
    ],
)
def test_blocks_of_another_shape_leave_no_file(tmp_path, blocks, message):
    with pytest.raises(ValueError, match=message):
        write_safetensors_rows(tmp_path / "out", "x", (5, 3), blocks, OTHERS, {})
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_nobody_could_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("nl3d.files.LARGEST_HEADER", 300)
    with pytest.raises(ValueError, match="metadata must fit into a header of 300 bytes, got 4"):
        write_safetensors_rows(tmp_path / "out", "x", (5, 3), [torch.zeros(5, 3)], OTHERS, {"long": "x" * 200})
    assert list(tmp_path.iterdir()) == []


def test_metadata_that_is_not_utf8_is_escaped(tmp_path):
    write_safetensors(tmp_path / "whole", OTHERS, {"source": "in\udce9/\u00fc"})
    with safe_open(tmp_path / "whole", "pt") as file:
        assert file.metadata()["source"] == "in\\udce9/\u00fc"
