import json

import pytest
import torch

from nl3d.cli import main
from nl3d.data import read_ccvid, read_manifest, read_manifest_tracklets, write_manifest
from tests.data.pictures import write_jpeg
from tests.embedding.people import embeddings

LISTS = {
    part: [tuple(line.split()) for line in lines]
    for part, lines in {
        "train": ["session1/001_01 001 u1_l1", "session3/001_02 001 u2_l1", "session1/007_01 007 u1_l1"],
        "query": ["session1/002_01 002 u1_l1", "session2/003_01 003 u1_l2"],
        "gallery": ["session1/002_02 002 u1_l1", "session3/002_01 002 u9_l9", "session1/003_02 003 u1_l2"],
    }.items()
}


@pytest.fixture
def root(tmp_path):
    for part, lines in LISTS.items():
        (tmp_path / f"{part}.txt").write_text("".join("\t".join(line) + "\n" for line in lines))
        for folder, _, _ in lines:
            for number in range(2):
                write_jpeg(tmp_path / folder / f"{number:05d}.jpg")
    return tmp_path


def test_reads_the_lists(root):
    dataset = read_ccvid(root, check_counts=False)
    assert [(t.pid, t.camid, t.clothes) for t in dataset.train] == [(0, 1, "u1_l1"), (0, 14, "u2_l1"), (1, 1, "u1_l1")]
    assert dataset.train_labels == (1, 7)
    assert [(t.pid, t.camid, t.clothes) for t in dataset.gallery] == [
        (2, 2, "u1_l1"),
        (2, 13, "u9_l9"),
        (3, 2, "u1_l2"),
    ]
    assert [len(t) for t in dataset.query] == [2, 2]
    with pytest.raises(ValueError, match="CCVID training people must be 75 in the published data set, got 2"):
        read_ccvid(root)


def test_a_table_keeps_the_clothes(root, tmp_path):
    table = tmp_path / "ccvid.csv"
    write_manifest(table, read_ccvid(root, check_counts=False))
    assert table.read_text().splitlines()[0] == "path,pid,camid,tracklet,part,frame,clothes"
    again = read_manifest(table)
    for part in ("train", "query", "gallery"):
        assert [t.clothes for t in getattr(again, part)] == [clothes for *_, clothes in LISTS[part]]
    assert {t.clothes for t in read_manifest_tracklets(table)} == {"u1_l1", "u2_l1", "u1_l2", "u9_l9"}
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], lines[1], lines[2].replace("u1_l1", "u5_l5")]) + "\n")
    with pytest.raises(
        ValueError, match=r"line 3: tracklet 'session1/001_01' must be in the same clothes, got 'u5_l5'"
    ):
        read_manifest(table)


@pytest.mark.parametrize(("rule", "valid"), [("any", 2), ("same", 2), ("changed", 1)])
def test_evaluate_scores_by_clothes(root, tmp_path, capsys, rule, valid):
    table = tmp_path / "ccvid.csv"
    write_manifest(table, read_ccvid(root, check_counts=False))
    names = tuple(f"{part}/{folder}" for part in ("query", "gallery") for folder, *_ in LISTS[part])
    rows = torch.tensor([[0.0], [5.0], [0.5], [9.0], [5.5]])
    embeddings(rows, names=names).save(tmp_path / "all.safetensors")
    options = ["--labels", str(table), "--clothes", rule]
    assert main(["evaluate", str(tmp_path / "all.safetensors"), *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_valid_queries"], found["clothes"]) == (valid, rule)
    wanted = {"any": (1 + 2 / 3) / 2 / 2 + 0.5, "same": 1.0, "changed": 0.5}[rule]
    assert found["mAP"] == pytest.approx(wanted)
    assert main(["evaluate", str(tmp_path / "all.safetensors"), *options]) == 0
    assert ("clothes left out" in capsys.readouterr().out) == (rule != "any")


def test_refusals(root, tmp_path, capsys):
    (tmp_path / "plain.csv").write_text("tracklet,pid,camid\na,1,1\nb,1,2\n")
    embeddings(torch.zeros(2, 1), names=("a", "b")).save(tmp_path / "ab.safetensors")
    assert main(
        ["evaluate", str(tmp_path / "ab.safetensors"), "--labels", str(tmp_path / "plain.csv"), "--clothes", "same"]
    )
    assert "--clothes same needs a column clothes in the table of --labels" in capsys.readouterr().err
    (root / "query.txt").write_text("002_01 002\n")
    with pytest.raises(ValueError, match=r"query.txt, line 1: a line must be a folder such as session1/001_01, a pid"):
        read_ccvid(root, check_counts=False)
