import csv
import json
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nl3d.cli import main
from tests import oracles
from tests.embedding.people import embeddings


def run(*arguments):
    return main(["evaluate", *(str(argument) for argument in arguments)])


def scores(capsys, *arguments):
    assert run(*arguments, "--json") == 0
    told = capsys.readouterr()
    return json.loads(told.out)


def make(seed=0, num_query=12, num_gallery=60):
    """Random embeddings with junk, distractors and a query that nobody matches."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(count, 6, generator=generator) for count in (num_query, num_gallery)]
    pids = [torch.randint(low, 6, (count,), generator=generator) for low, count in ((1, num_query), (-1, num_gallery))]
    camids = [torch.randint(0, 3, (count,), generator=generator) for count in (num_query, num_gallery)]
    pids[0][0] = 77
    return rows, pids, camids


def distances(rows, metric):
    query, gallery = (part.double() for part in rows)
    if metric == "cosine":
        query, gallery = (part / part.norm(dim=1, keepdim=True) for part in (query, gallery))
    return (query[:, None] - gallery[None]).norm(dim=2).tolist()


def expected(distmat, pids, camids, **options):
    return oracles.ranking_scores(distmat, *(part.tolist() for part in (*pids, *camids)), **options)


def assert_equal(found, wanted):
    cmc, mean_precision, mean_penalty, count = wanted
    assert found["cmc"] == pytest.approx({str(rank): value for rank, value in cmc.items()})
    assert (found["mAP"], found["mINP"]) == pytest.approx((mean_precision, mean_penalty))
    assert found["num_valid_queries"] == count


def write_pair(folder, rows, pids, camids, tag=""):
    """The query as safetensors, the gallery as an .npz with the other name for embeddings."""
    query, gallery = folder / f"query{tag}.safetensors", folder / f"gallery{tag}.npz"
    save_file({"embeddings": rows[0], "pids": pids[0], "camids": camids[0]}, query)
    np.savez(gallery, features=rows[1].numpy(), pids=pids[1].numpy(), camids=camids[1].numpy())
    return query, gallery


def write_all(folder, rows, pids, camids, name="table.csv"):
    """One file that knows no labels, its rows shuffled, and the table that does."""
    names = [f"{part}{row}" for part, count in zip("qg", map(len, rows), strict=True) for row in range(count)]
    order = torch.randperm(len(names)).tolist()
    embeddings(torch.cat(rows)[order], names=tuple(names[row] for row in order)).save(
        folder / "all.safetensors", overwrite=True
    )
    parts = ["query"] * len(rows[0]) + ["gallery"] * len(rows[1])
    with (folder / name).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("part", "path", "pid", "camid", "tracklet"))
        labels = [torch.cat(both).tolist() for both in (pids, camids)]
        for part, tracklet, pid, camid in zip(parts, names, *labels, strict=True):
            table.writerows((part, f"nowhere/{frame}.jpg", pid, camid, tracklet) for frame in range(2))
        table.writerow(("train", "nowhere/9.jpg", "somebody", 0, "not embedded"))
    return folder / "all.safetensors", folder / name


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("ap", ["interpolated", "trapezoid"])
@pytest.mark.parametrize("distractors", [(), (0, 3)])
@pytest.mark.parametrize("cameras", [True, False])
def test_equals_the_walk_down_every_ranking(tmp_path, capsys, metric, ap, distractors, cameras):
    rows, pids, camids = make()
    wanted = expected(
        distances(rows, metric), pids, camids, ap=ap, ranks=(1, 3), distractors=distractors, cameras=cameras
    )
    options = ["--metric", metric, "--ap", ap, "--ranks", 1, 3, "--distractor-pids", *distractors]
    options += [] if cameras else ["--keep-same-camera"]
    found = scores(capsys, *write_pair(tmp_path, rows, pids, camids), *options)
    assert_equal(found, wanted)
    assert found["num_queries_without_match"] == 12 - wanted[-1] > 0
    assert found["num_junk"] == int((pids[1] == -1).sum()) == 60 - found["num_gallery"] > 0
    settings = {
        name: found[name] for name in ("protocol", "metric", "ap", "exclude_same_camera", "junk_pids", "rerank")
    }
    assert settings == {
        "protocol": "files", "metric": metric, "ap": ap, "exclude_same_camera": cameras, "junk_pids": [-1],
        "rerank": None,
    }  # fmt: skip
    assert found["distractor_pids"] == list(distractors)
    by_table = scores(capsys, write_all(tmp_path, rows, pids, camids)[0], "--labels", tmp_path / "table.csv", *options)
    assert {**by_table, "protocol": "files"} == found
    assert by_table["protocol"] == "parts"


def test_all_against_all_looks_for_every_person(tmp_path, capsys):
    (_, rows), (_, pids), (_, camids) = make()
    np.savez(tmp_path / "all.npz", embeddings=rows, pids=pids, camids=camids)
    kept = pids > 0
    sides = [(part[kept], part) for part in (rows, pids, camids)]
    wanted = expected(distances(sides[0], "euclidean"), *sides[1:], ranks=(1, 5, 10, 20), distractors=(0,))
    found = scores(capsys, tmp_path / "all.npz", "--distractor-pids", 0)
    assert_equal(found, wanted)
    assert (found["protocol"], found["num_queries"]) == ("all", int(kept.sum()))


def test_junk_is_what_the_options_say(tmp_path, capsys):
    rows, pids, camids = make()
    files = write_pair(tmp_path, rows, pids, camids)
    for junk in ((), (-1, 2)):
        found = scores(capsys, *files, "--ranks", 1, 5, "--junk-pids", *junk)
        assert_equal(found, expected(distances(rows, "euclidean"), pids, camids, junk=junk))
        assert found["junk_pids"] == list(junk)


def test_re_ranks_with_the_parameters_given(tmp_path, capsys):
    rows, pids, camids = make()
    files = write_pair(tmp_path, rows, pids, camids)
    kept = pids[1] != -1  # junk is no neighbour
    everyone = torch.cat([rows[0], rows[1][kept]]).double().tolist()
    labels = (pids[0], pids[1][kept]), (camids[0], camids[1][kept])
    for given, settings in (((), (20, 6, 0.3)), (("--k1", 4, "--k2", 2, "--original-weight", 0.7), (4, 2, 0.7))):
        found = scores(capsys, *files, "--ranks", 1, 5, "--rerank", *given)
        assert_equal(found, expected(oracles.k_reciprocal_distances(everyone, 12, *settings), *labels))
        assert found["rerank"] == dict(zip(("k1", "k2", "original_weight"), settings, strict=True))


@pytest.mark.cuda
@pytest.mark.parametrize("options", [(), ("--rerank",)])
def test_a_gpu_gives_the_same(tmp_path, capsys, options):
    files = write_pair(tmp_path, *make())
    found, wanted = (scores(capsys, *files, *options, "--device", device) for device in ("cuda", "cpu"))
    assert found == pytest.approx(wanted)


def by_hand(*splits):
    """Mean and deviation of the oracle's mAP and rank-1."""
    each = [expected(distances(rows, "euclidean"), *labels) for rows, *labels in splits]
    return [{"mean": fmean(values), "deviation": stdev(values)}
            for values in ([one[1] for one in each], [one[0][1] for one in each])]  # fmt: skip


def test_splits_of_their_own_files_give_mean_and_deviation(tmp_path, capsys):
    splits = [make(seed) for seed in range(3)]
    options = []
    for number, split in enumerate(splits):
        options += ["--split", *write_pair(tmp_path, *split, tag=number)]
    found = scores(capsys, *options, "--ranks", 1, 5)
    mean_precision, first = by_hand(*splits)
    assert found["mAP"] == pytest.approx(mean_precision)
    assert found["cmc"]["1"] == pytest.approx(first)
    assert (found["num_splits"], len(found["num_valid_queries"])) == (3, 3)
    assert found["splits"][1] == scores(capsys, *options[4:6], "--ranks", 1, 5)
    assert run(*options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["mean", "deviation"]
    assert lines[5].split() == [
        "mAP", f"{100 * mean_precision['mean']:.1f}", "%", f"{100 * mean_precision['deviation']:.1f}", "%",
    ]  # fmt: skip
    assert lines[7].startswith("3 splits: ")


def test_one_file_and_a_table_for_each_split(tmp_path, capsys):
    rows, pids, camids = make()
    tables = []
    changed = []
    for split in range(2):
        others = [pids[0].roll(split), pids[1].roll(3 * split)]
        path, table = write_all(tmp_path, rows, others, camids, name=f"split{split}.csv")
        tables.append(table)
        changed.append((rows, others, camids))
    found = scores(capsys, path, "--ranks", 1, 5, "--labels", *tables)
    assert found["mAP"] == pytest.approx(by_hand(*changed)[0])
    again = scores(capsys, "--split", path, "--split", path, "--ranks", 1, 5, "--labels", *tables)
    assert again == found


def test_the_table_to_read_says_what_was_counted(tmp_path, capsys):
    rows, pids, camids = make()
    files = write_pair(tmp_path, rows, pids, camids)
    found = scores(capsys, *files)
    assert run(*files) == 0
    told = capsys.readouterr()
    assert told.err == ""
    lines = told.out.splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["rank-1", "rank-5", "rank-10", "rank-20", "mAP", "mINP"]
    assert lines[0].split()[1:] == [f"{100 * found['cmc']['1']:.1f}", "%"]
    valid, without, junk = (found[name] for name in ("num_valid_queries", "num_queries_without_match", "num_junk"))
    assert lines[6] == (
        f"{valid} queries with a match, which count, {without} without; "
        f"{60 - junk} gallery tracklets, {junk} junk left out"
    )
    assert lines[7] == "euclidean distance, interpolated AP, the query's person under the same camera left out"
    assert run(*files, "--rerank", "--keep-same-camera") == 0
    assert capsys.readouterr().out.splitlines()[7] == (
        "euclidean distance, re-ranked, interpolated AP, the query's person under the same camera kept"
    )


def test_says_what_it_left_out(tmp_path, capsys):
    path, table = write_all(tmp_path, *make())
    table.write_text("".join(line for line in table.open() if "g7" not in line))
    assert run(path, "--labels", table) == 0
    told = capsys.readouterr().err
    assert told == f"nl3d: 1 embeddings are not in {str(table)!r}, such as 'g7', and were left out\n"


def refused(capsys, *arguments):
    """Standard error of a run that is refused in one sentence."""
    assert run(*arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("nl3d: ")
    assert told.err.count("\n") == 1
    return told.err


def test_refusals_are_one_sentence(tmp_path, capsys):
    rows, pids, camids = make()
    query, gallery = write_pair(tmp_path, rows, pids, camids)
    everything, table = write_all(tmp_path, rows, pids, camids)
    rows[1][5, 2] = float("nan")
    _, with_nan = write_pair(tmp_path, rows, pids, camids, tag="-nan")
    np.savez(tmp_path / "narrow.npz", features=rows[0][:, :4], pids=pids[0], camids=camids[0])
    np.savez(tmp_path / "others.npz", features=rows[0], pids=pids[0] + 500, camids=camids[0])
    np.savez(tmp_path / "short.npz", features=rows[0], pids=pids[0][1:], camids=camids[0])
    np.savez(tmp_path / "junk.npz", features=rows[0], pids=pids[0] * 0 - 1, camids=camids[0])
    cases = [
        ((), "FILE or --split must be given, and not both"),
        ((query, "--split", query, gallery), "FILE or --split must be given, and not both"),
        (("--labels", table, everything), "name files before --labels"),
        ((query, gallery, everything), "FILE must be one file, or query and gallery, got 3; see --split"),
        (("--split", query, "--split", query, "--labels", *[table] * 3), "one for each of 2 splits, got 3"),
        ((query, gallery, "--k1", 3), "--k1 must come with --rerank"),
        ((query, gallery, "--original-weight", 0.3), "--original-weight must come with --rerank"),
        ((query, gallery, "--rerank", "--original-weight", 2), "original_weight must be from 0 to 1, got 2.0"),
        ((query, gallery, "--device", "cuda:77"), "device must be one that is there"),
        ((query, tmp_path / "none.npz"), "none.npz' does not exist"),
        ((query, tmp_path), "does not exist"),
        ((query, with_nan), "gallery-nan.npz': embeddings must be finite, got NaN or infinite values for tracklet '6'"),
        ((query, tmp_path / "narrow.npz"), "query and gallery must have one width, got 6 and 4"),
        ((query, tmp_path / "others.npz"), "must have a match in g_pids under another camera, got none for any of 12"),
        (
            (query, tmp_path / "short.npz"),
            "short.npz' must be (12,), one row for each embedding, got an array of shape (11,)",
        ),
        ((query, tmp_path / "junk.npz"), "g_pids must hold more than junk"),
        (
            (tmp_path / "junk.npz",),
            "junk.npz' must hold a person to search for, got 12 tracklets of junk or distractors",
        ),
        ((everything,), "all.safetensors' must hold pids, or a table of labels must be given"),
        ((query, query, "--labels", table), "query.safetensors' holds no names, so it must have one row"),
        ((everything, "--labels", everything), "all.safetensors, line 1: a table must be text in UTF-8"),
        (("--split", query, gallery, "--split", query, with_nan), "split 2: embeddings file"),
    ]
    for arguments, message in cases:
        assert message in refused(capsys, *arguments), arguments


@pytest.mark.parametrize(
    ("option", "value"), [("--ranks", "0"), ("--metric", "hamming"), ("--ap", "voc"), ("--k2", "x")]
)
def test_unknown_names_and_numbers_are_refused(capsys, option, value):
    with pytest.raises(SystemExit) as stopped:
        run("a.npz", option, value)
    assert stopped.value.code == 2
    assert f"argument {option}: " in capsys.readouterr().err
