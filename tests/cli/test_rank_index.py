"""``nl3d rank --index faiss``."""

import json

import pytest
import torch

from nl3d.cli import main
from tests.embedding.people import embeddings

pytest.importorskip("faiss")


def run(capsys, *arguments):
    status = main(["rank", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out, told.err


@pytest.fixture
def sets(tmp_path):
    query, gallery = tmp_path / "query.safetensors", tmp_path / "gallery.safetensors"
    embeddings(torch.randn(12, 8)).save(query)
    embeddings(torch.randn(300, 8), pids=torch.arange(300)).save(gallery)
    return query, gallery


def test_prints_what_the_exact_search_prints_and_the_recall(capsys, sets):
    _, exact, silence = run(capsys, *sets, "--top", 3)
    status, out, err = run(capsys, *sets, "--top", 3, "--index", "faiss", "--recall-queries", 5)
    assert (status, out, silence) == (0, exact, "")
    assert err.startswith("nl3d: index flat of 300 tracklets built in ")
    assert "nl3d: recall@3 100.0 % of the exact answer on 5 queries; " in err
    assert "recall" not in run(capsys, *sets, "--index", "faiss", "--recall-queries", 0)[2]


def test_an_index_file_is_written_once_and_used_again(tmp_path, capsys, sets):
    path = tmp_path / "gallery.faiss"
    index = ["--index", "faiss", "--index-file", path]
    built = ["--index-kind", "ivfpq", "--nlist", 5, "--pq-bytes", 8, "--metric", "cosine"]
    _, first, told = run(capsys, *sets, *index, *built, "--json")
    assert "index ivfpq (nlist 5, pq_bytes 8) of 300 tracklets built" in told
    stamp = path.stat().st_mtime_ns
    _, second, told = run(capsys, *sets, *index, "--json")
    assert "tracklets opened" in told
    assert path.stat().st_mtime_ns == stamp
    first, second = json.loads(first), json.loads(second)
    assert (first["metric"], first["rankings"]) == (second["metric"], second["rankings"])
    assert first["metric"] == "cosine"
    assert set(first["index"]) == {"kind", "nlist", "pq_bytes", "recall", "top", "num_query", "index_seconds",
                                   "exact_seconds"}  # fmt: skip

    for options, message in (
        (["--index-kind", "hnsw"], "was built with kind ivfpq, got hnsw; leave the option out, or add --rebuild-index"),
        (["--metric", "euclidean"], "was built with metric cosine, got euclidean"),
        (["--ef-search", 9], "ef_search is a setting of hnsw, got an index of kind 'ivfpq'"),
    ):
        status, out, err = run(capsys, *sets, *index, *options)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
    embeddings(torch.randn(300, 8)).save(sets[1], overwrite=True)
    status, out, err = run(capsys, *sets, *index)
    assert (status, out) == (2, "")
    assert "must be of this gallery, whose vectors have changed since; build it again (--rebuild-index)\n" in err
    status, _, err = run(capsys, *sets, *index, "--rebuild-index")
    assert (status, "index flat of 300 tracklets built" in err) == (0, True)


def test_a_query_that_gets_too_few_is_reported(capsys, sets):
    options = ["--index", "faiss", "--index-kind", "ivfpq", "--nlist", 7, "--nprobe", 1, "--top", 200]
    status, _, err = run(capsys, *sets, *options)
    assert status == 0
    assert "nl3d: 12 of 12 queries got fewer than 200; raise --nprobe\n" in err


def test_refusals_come_before_any_work_and_leave_no_file(tmp_path, capsys, sets):
    cases = [
        (["--nprobe", 3], "--nprobe is an option of the index; add --index faiss"),
        (["--index-file", "x"], "--index-file is an option of the index; add --index faiss"),
        (["--index", "faiss", "--rebuild-index"], "--rebuild-index needs the --index-file to replace"),
        (["--index", "faiss", "--index-file", tmp_path / "no" / "x"], "must lie in a folder that exists"),
        (["--index", "faiss", "--index-file", sets[0]], "query.safetensors' must be written by nl3d rank --index-file"),
        (
            ["--index", "faiss", "--index-file", tmp_path / "x", "--nprobe", 3],
            "nprobe is a setting of ivfpq, got an index of kind 'flat'",
        ),
    ]
    before = sorted(tmp_path.iterdir())
    for options, message in cases:
        status, out, err = run(capsys, *sets, *options)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
    assert sorted(tmp_path.iterdir()) == before


def test_only_an_index_is_rebuilt_and_no_input_is_written(tmp_path, capsys, sets):
    other = tmp_path / "thesis.pdf"
    other.write_text("precious")
    link = tmp_path / "link.faiss"
    link.symlink_to(sets[1])
    for path, message in (
        (other, "thesis.pdf' must be an index that nl3d wrote, to be replaced; delete it, or choose another name"),
        (sets[1], "must not replace an input"),
        (link, "must not replace an input"),
        ("/dev/null", "must be a regular file"),
    ):
        before = None if path == "/dev/null" else path.read_bytes()
        status, out, err = run(capsys, *sets, "--index", "faiss", "--index-file", path, "--rebuild-index")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
        assert before is None or path.read_bytes() == before
