"""The example that scores weights on MARS, on a small tree of its form with the small network of a fixture."""

import re
import runpy
import sys
from pathlib import Path

import torch

import nl3d
from nl3d.data import ClipTransform, read_mars
from nl3d.data.clips.sampling import sample_clips
from tests.convert.foreign import published
from tests.data.layouts import write_mars

EXAMPLE = Path(__file__).parents[2] / "examples" / "evaluate_mars.py"


def test_weights_are_scored_on_chunk_starts(tmp_path, monkeypatch, capsys):
    root = write_mars(tmp_path / "mars")
    torch.save(published("stenvan_nvan_r50"), tmp_path / "NVAN.pth")
    options = [
        "--root",
        root,
        "--weights",
        tmp_path / "NVAN.pth",
        "--size",
        "64",
        "32",
        "--workers",
        "0",
        "--any-counts",
    ]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, options)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")

    mars = read_mars(root, test_only=True, check_counts=False)
    model = nl3d.from_checkpoint(tmp_path / "NVAN.pth")
    transform = ClipTransform((64, 32))
    vectors = []
    for part in (mars.query, mars.gallery):
        clips = [transform([t.read(i) for i in sample_clips(len(t), 8, "chunk_start")[0]]) for t in part]
        with torch.no_grad():
            vectors.append(model(torch.stack(clips)).embedding)
    labels = [[getattr(t, name) for t in part] for name in ("pid", "camid") for part in (mars.query, mars.gallery)]
    wanted = nl3d.evaluate(*vectors, *labels, metric="cosine", **mars.evaluate_options())
    found = re.search(r"rank-1 ([\d.]+) %, mAP ([\d.]+) %", capsys.readouterr().out)
    assert (float(found[1]), float(found[2])) == (round(100 * wanted.cmc[1], 2), round(100 * wanted.mAP, 2))
