import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nl3d
from nl3d.cli import main
from nl3d.data.frames.names import FrameNames
from nl3d.data.sources import open_source
from nl3d.data.tracklet_source import TrackletSource
from nl3d.data.tracklets import Tracklet
from nl3d.embedding.embedder import TrackletEmbedder
from nl3d.embedding.embeddings import Embeddings
from nl3d.embedding.network import device_of_rank, seeded
from nl3d.embedding.sharing import parts, shards
from nl3d.embedding.sharing.shards import Share, embed_to_file
from tests.data.pictures import write_jpeg
from tests.embedding.people import TinyNet

ROOT = Path(nl3d.__file__).parents[1]
LENGTHS = [1 + place * 5 % 13 for place in range(23)]
SMALL = {"batch_size": 2, "batches_per_part": 3}  # clips of a part: six or a few more
COUNT = 8  # parts


@pytest.fixture
def table(tmp_path):
    """A table of 23 tracklets, some of them junk, whose frames all differ."""
    rows = ["path,tracklet,pid,camid"]
    for place, length in enumerate(LENGTHS):
        for frame in range(length):
            colour = (11 * place % 256, 19 * frame % 256, 37 * (place + frame) % 256)
            write_jpeg(tmp_path / "frames" / f"{place}_{frame}.jpg", colour=colour, size=(24, 12))
            rows.append(f"frames/{place}_{frame}.jpg,t{place},{-1 if place % 4 == 3 else place // 2},{place % 3}")
    (tmp_path / "people.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "people.csv"


def run(table, output, rank=0, world=1, model=None, **options):
    model = seeded(TinyNet) if model is None else model
    return embed_to_file(table, model, output, share=Share(rank, world, rank), **{**SMALL, **options})


def left(output):
    """Names in the output's folder, without the table and the frames."""
    return sorted(path.name for path in output.parent.iterdir() if path.name not in ("people.csv", "frames"))


@pytest.mark.parametrize("world", [2, 3, 10])
def test_many_processes_give_the_file_of_one(tmp_path, table, world):
    alone, together = tmp_path / "alone.safetensors", tmp_path / "together.safetensors"
    outcome = run(table, alone)
    assert (outcome.joined, outcome.made, outcome.missing) == (True, COUNT, ())
    assert outcome.text.endswith("23 tracklets, 24 numbers each (features of tiny, weights )")
    for rank in reversed(range(world)):
        outcome = run(table, together, rank, world)
        assert (outcome.complete, outcome.joined) == (rank == 0, rank == 0)
    assert together.read_bytes() == alone.read_bytes()
    assert left(alone) == ["alone.safetensors", "together.safetensors"]


def test_the_file_is_what_embed_gives(tmp_path, table):
    output = tmp_path / "out.safetensors"
    run(table, output, batches_per_part=64)
    found, expected = Embeddings.load(output), nl3d.embed(table, seeded(TinyNet), batch_size=2)
    for name in ("embeddings", "track_ids", "frame_ranges", "pids", "camids"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert found.names == expected.names == tuple(f"t{place}" for place in range(23))
    assert found.pids.tolist()[:5] == [0, 0, 1, -1, 2]
    run_digest = found.metadata.pop("run")
    assert found.metadata == expected.metadata
    Embeddings.save(found, tmp_path / "again.safetensors")
    found.metadata["run"] = run_digest
    found.save(tmp_path / "again.safetensors", overwrite=True)
    assert (tmp_path / "again.safetensors").read_bytes() == output.read_bytes()


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet", ".lance"])
def test_every_output_holds_the_same(tmp_path, table, suffix):
    if suffix != ".npz" and suffix != ".csv":
        pytest.importorskip("pyarrow")
    if suffix == ".lance":
        pytest.importorskip("lancedb")
    for name in ("1_0", "1_1", *(f"0_{frame}" for frame in range(LENGTHS[0]))):
        (tmp_path / "frames" / f"{name}.jpg").write_bytes(b"noise")
    run(table, tmp_path / "one.safetensors", skip_unreadable=True)
    output = tmp_path / f"two{suffix}"
    for rank in (1, 0):
        outcome = run(table, output, rank, 2, skip_unreadable=True)
    assert (outcome.joined, outcome.dropped) == (True, ("t0",))
    found, expected = Embeddings.load(output), Embeddings.load(tmp_path / "one.safetensors")
    for name in ("embeddings", "track_ids", "frame_ranges", "pids", "camids"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert (found.names, found.people, found.cameras) == (expected.names, expected.people, expected.cameras)
    kept = [key for key in expected.metadata if suffix != ".csv" or key in ("network", "output")]
    assert found.metadata == {key: expected.metadata[key] for key in kept}
    assert left(output) == ["one.safetensors", f"two{suffix}"]
    if suffix in (".parquet", ".lance"):
        assert run(table, output, skip_unreadable=True).text.endswith("delete it to start again")
        with pytest.raises(FileExistsError, match="exists already; delete it, or choose another name"):
            run(table, output, skip_unreadable=True, overwrite=True)
        with pytest.raises(FileExistsError, match="exists already"):
            run(table, output, batch_size=3, skip_unreadable=True)
        run(table, tmp_path / f"broken{suffix}", 0, 2, skip_unreadable=True)
        (tmp_path / f"other{suffix}").mkdir()
        with pytest.raises(FileExistsError, match="exists already"):
            run(table, tmp_path / f"other{suffix}")


def test_a_table_that_is_not_sorted_is_read_whole_and_gives_the_same(tmp_path, table):
    run(table, tmp_path / "sorted.safetensors")
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *rows[1:], rows[0]]) + "\n")  # t0 has one frame
    found = [run(table, tmp_path / "mixed.safetensors", rank, 2) for rank in (0, 1)]
    assert found[1].joined
    mixed, expected = (Embeddings.load(tmp_path / f"{name}.safetensors") for name in ("mixed", "sorted"))
    assert sorted(mixed.names) == sorted(expected.names)
    rows = expected.places(mixed.names)
    torch.testing.assert_close(mixed.embeddings, expected.embeddings[rows])
    assert torch.equal(mixed.pids, expected.pids[rows])


def test_a_folder_of_tracklets_is_shared_like_a_table(tmp_path):
    for place in range(9):
        for frame in range(1 + place):
            write_jpeg(tmp_path / "people" / f"{place}" / f"{frame}.jpg", colour=(20 * place, 30, 9), size=(24, 12))
    for rank in (0, 1):
        outcome = run(tmp_path / "people", tmp_path / "out.safetensors", rank, 2, batches_per_part=1)
    assert outcome.joined
    expected = nl3d.embed(tmp_path / "people", seeded(TinyNet)).embeddings
    torch.testing.assert_close(Embeddings.load(tmp_path / "out.safetensors").embeddings, expected)


def launch(tmp_path, command, *arguments, check=True):
    """Run a command of the shell in a folder of its own, as a user does."""
    environ = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command, *map(str, arguments)],
        cwd=tmp_path,
        env=environ,
        check=check,
        capture_output=True,
        text=True,
    )


def test_a_killed_process_goes_on_where_it_was(tmp_path, table):
    output, undisturbed = tmp_path / "out.safetensors", tmp_path / "undisturbed.safetensors"
    model = seeded(TinyNet)
    run(table, undisturbed, model=model)
    total = len(model.seen)
    killed = launch(tmp_path, ["tests.embedding.sharing.shard_process"], table, output, total // 2, check=False)
    assert killed.returncode == -9
    assert not output.exists()
    there = sorted((tmp_path / "out.safetensors.parts").glob("*-*.safetensors"))
    made_by_them = {path.name: path.stat().st_mtime_ns for path in there}
    assert 0 < len(there) < COUNT

    model = seeded(TinyNet)
    outcome = run(table, output, model=model)
    assert outcome.made == COUNT - len(made_by_them)
    assert total // 2 <= len(model.seen) <= total - 3 * len(made_by_them)  # three batches a part, no fewer
    assert output.read_bytes() == undisturbed.read_bytes()
    assert left(output) == ["out.safetensors", "undisturbed.safetensors"]


def test_torchrun_and_the_command_line_give_the_file_of_one(tmp_path, table):
    network = [
        "--model",
        "resnet3d18",
        "--weights",
        "none",
        "--size",
        "32x16",
        "--num-frames",
        "2",
        "--batch-size",
        "1",
    ]
    network += ["--device", "cpu"]
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "nl3d", "embed"]
    done = launch(tmp_path, command, table, "--output", "two.safetensors", *network)
    assert done.stdout.count("two.safetensors: 23 tracklets, 512 numbers each") == 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as torchrun has it; sums in another order could differ in the last digit
    try:
        assert main(["embed", str(table), "--output", str(tmp_path / "one.safetensors"), *network]) == 0
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert left(tmp_path / "one.safetensors") == ["one.safetensors", "two.safetensors"]


def test_what_a_dead_process_left_undone_is_named_and_done_by_any_number_of_others(tmp_path, table):
    output = tmp_path / "out.safetensors"
    run(table, output, 0, 3)
    outcome = run(table, output, 2, 3)
    assert outcome.missing == (1, 4, 7)
    assert not outcome.complete
    assert "3 of the 8 parts of" in outcome.text
    assert "are still missing (3 of rank 1)" in outcome.text
    assert "repeat the same command, which resumes from here" in outcome.text
    models = [seeded(TinyNet) for _ in range(4)]
    made = [run(table, output, rank, 4, model=models[rank]).made for rank in range(4)]
    assert made == [1, 1, 0, 1]  # parts 4, 1 and 7
    assert not models[2].seen
    run(table, tmp_path / "alone.safetensors")
    assert output.read_bytes() == (tmp_path / "alone.safetensors").read_bytes()


def test_parts_of_another_run_are_never_mixed_in(tmp_path, table):
    output, expected = tmp_path / "out.safetensors", tmp_path / "expected.safetensors"
    run(table, expected)
    run(table, output, 0, 2)
    other = seeded(TinyNet, seed=5)
    with pytest.raises(parts.OtherRunError, match=r"has 4 parts of another run in .*, which differs in network;"):
        run(table, output, model=other)
    with pytest.raises(parts.OtherRunError, match="differs in preprocessing, batch_size, skip_unreadable; repeat its"):
        run(table, output, size=(10, 6), batch_size=3, skip_unreadable=True)
    table.write_text(table.read_text().replace(",t3,-1,", ",t3,7,"))
    with pytest.raises(parts.OtherRunError, match="which differs in tracklets;"):
        run(table, output)
    table.write_text(table.read_text().replace(",t3,7,", ",t3,-1,"))
    for path in (tmp_path / "out.safetensors.parts").glob("*.json"):
        path.unlink()  # even if nobody says that they are another run's
    assert run(table, output, model=other).made == COUNT
    assert Embeddings.load(output).metadata["network"] != Embeddings.load(expected).metadata["network"]
    assert len(list((tmp_path / "out.safetensors.parts").iterdir())) == 4  # what is not ours stays
    output.unlink()
    assert run(table, output).made == COUNT - 4
    assert output.read_bytes() == expected.read_bytes()


def test_a_run_that_came_to_nothing_is_in_nobody_s_way(tmp_path, table):
    folder = tmp_path / "out.safetensors.parts"
    folder.mkdir()
    (folder / "0123456789abcdef.json").write_text("{}")
    assert run(table, tmp_path / "out.safetensors").joined
    assert not folder.exists()


def test_one_process_joins_what_a_killed_joining_left(tmp_path, table, monkeypatch):
    output = tmp_path / "out.safetensors"

    write = parts.write_columns

    def killed(path, *arguments):
        if "joined" in path.name:
            path.write_text("half")
            raise KeyboardInterrupt
        write(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(parts, "write_columns", killed)
        with pytest.raises(KeyboardInterrupt):
            run(table, output)
    outcome = run(table, output, 1, 2)
    assert (outcome.complete, outcome.made) == (False, 0)
    assert "all parts of" in outcome.text
    assert "process 0 joins them" in outcome.text
    outcome = run(table, output, 0, 2)
    assert (outcome.joined, outcome.made) == (True, 0)
    assert left(output) == ["out.safetensors"]


def test_two_that_finish_in_the_same_moment_make_one_file(tmp_path, table, monkeypatch):
    output = tmp_path / "out.safetensors"
    join = parts.PartFolder.join

    def overtaken(folder, *arguments):
        join(folder, *arguments)
        folder.remove()
        return join(folder, *arguments)

    monkeypatch.setattr(parts.PartFolder, "join", overtaken)
    outcome = run(table, output)
    assert (outcome.complete, outcome.joined) == (True, False)
    assert outcome.text.endswith("was joined by another process")
    assert left(output) == ["out.safetensors"]


def test_a_finished_run_is_not_repeated(tmp_path, table):
    output = tmp_path / "out.safetensors"
    run(table, output)
    for options in ({}, {"rank": 1, "world": 2}, {"rank": 1, "world": 2, "overwrite": True}):
        outcome = run(table, output, **options)
        assert (outcome.complete, outcome.joined, outcome.made) == (True, False, 0)
        assert "is there already, made by this very run; delete it to start again" in outcome.text
    assert run(table, output, overwrite=True).made == COUNT
    with pytest.raises(FileExistsError, match="exists already; choose another name"):
        run(table, output, batch_size=3)
    run(table, output, batch_size=3, overwrite=True)
    output.write_text("precious")
    with pytest.raises(FileExistsError, match="exists already; choose another name"):
        run(tmp_path / "not even there", output)
    assert left(output) == ["out.safetensors"]


def test_a_part_that_is_damaged_is_named(tmp_path, table):
    output = tmp_path / "out.safetensors"
    run(table, output, 0, 2)
    (damaged, *_) = sorted((tmp_path / "out.safetensors.parts").glob("*-*2.safetensors"))
    damaged.write_bytes(b"")
    with pytest.raises(ValueError, match=r"part .*-0000002.safetensors' cannot be read: .*; delete it and repeat"):
        run(table, output, 1, 2)
    damaged.unlink()
    assert run(table, output).joined


def test_an_unreadable_frame_stops_the_run_but_not_what_is_done(tmp_path, table):
    output = tmp_path / "out.safetensors"
    broken = tmp_path / "frames" / "12_3.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:150])
    with pytest.raises(ValueError, match=r"image '.*12_3.jpg' cannot be read"):
        run(table, output)
    assert not output.exists()
    broken.write_bytes(whole)
    assert 0 < run(table, output).made < COUNT


def test_skipped_frames_are_counted_whoever_skips_them(tmp_path, table):
    lost = [f"{place}_{frame}" for place in range(3) for frame in range(LENGTHS[place])]  # all of the first part
    for name in (*lost, "12_3", "12_4"):
        (tmp_path / "frames" / f"{name}.jpg").write_bytes(b"noise")
    (tmp_path / "frames" / "20_1.jpg").unlink()
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    outcome = run(table, one, skip_unreadable=True)
    assert len(outcome.unreadable) == len(lost) + 3
    assert "0_0.jpg' cannot be read" in outcome.unreadable[0]
    assert outcome.dropped == ("t0", "t1", "t2")
    run(table, two, 1, 2, skip_unreadable=True)
    run(table, two, 0, 2, skip_unreadable=True)
    assert one.read_bytes() == two.read_bytes()
    result = Embeddings.load(two)
    assert (len(result), result.names[0]) == (20, "t3")
    notes = json.loads(result.metadata["notes"])
    assert (notes["unreadable_frames"], notes["dropped_tracks"]) == (len(lost) + 3, ["t0", "t1", "t2"])


def test_nothing_readable_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"noise")
    (tmp_path / "people.csv").write_text("path\na.jpg\n")
    with pytest.raises(ValueError, match="must have a readable frame, got none in 1 frames"):
        run(tmp_path / "people.csv", tmp_path / "out.safetensors", skip_unreadable=True)
    assert not (tmp_path / "out.safetensors.parts").exists()
    write_jpeg(tmp_path / "a.jpg", colour=(9, 9, 9), size=(24, 12))
    assert run(tmp_path / "people.csv", tmp_path / "out.safetensors").joined


def test_a_kill_between_joining_and_removing_leaves_nothing_for_long(tmp_path, table, monkeypatch):
    output = tmp_path / "out.safetensors"

    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(parts.PartFolder, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            run(table, output)
    assert (tmp_path / "out.safetensors.parts").is_dir()
    assert "is there already" in run(table, output).text
    assert left(output) == ["out.safetensors"]


@pytest.mark.parametrize("when", [1, 4, 7])
def test_two_equal_commands_at_once_leave_one_file(tmp_path, table, monkeypatch, when):
    output = tmp_path / "out.safetensors"
    write = parts.PartFolder.write

    def overtaken(folder, number, *arguments):
        if number == when:
            monkeypatch.setattr(parts.PartFolder, "write", write)
            assert run(table, output).joined
        write(folder, number, *arguments)

    monkeypatch.setattr(parts.PartFolder, "write", overtaken)
    assert run(table, output).complete
    assert left(output) == ["out.safetensors"]


def test_vectors_that_are_not_finite_make_no_part(tmp_path, table):
    model = TinyNet()
    torch.nn.init.constant_(model.fc.bias, float("nan"))
    with pytest.raises(ValueError, match=r"embeddings must be finite, .* for tracklet 't0'"):
        run(table, tmp_path / "out.safetensors", model=model, output_layer="embedding")
    assert left(tmp_path / "out.safetensors") == []


def test_each_frame_is_looked_for_by_one_process_before_any_work(tmp_path, table):
    (tmp_path / "frames" / "20_1.jpg").unlink()
    model = TinyNet()
    with pytest.raises(FileNotFoundError, match=r"20_1.jpg' does not exist"):
        run(table, tmp_path / "out.safetensors", 2, 3, model=model)
    assert not model.seen
    for rank in (0, 1):
        shards.open_share(table, Share(rank, 3))
    (tmp_path / "frames" / "0_0.jpg").unlink()
    shards.open_share(table, Share(1, 3))
    with pytest.raises(FileNotFoundError, match=r"0_0.jpg' does not exist"):
        shards.open_share(table, Share(0, 3))
    with pytest.raises(FileNotFoundError, match=r"nor do 1 others"):
        shards.open_share(table, Share())


def test_parts_cover_all_tracklets_and_are_of_one_size():
    embedder = TrackletEmbedder(TinyNet(), batch_size=2)
    cut = embedder.cut(LENGTHS, batches=3)
    assert len(cut) == COUNT
    assert [row for part in cut for row in part] == list(range(len(LENGTHS)))
    sizes = [sum(-(-LENGTHS[row] // 4) for row in part) for part in cut]
    assert all(6 <= size < 6 + 4 for size in sizes[:-1])
    assert embedder.cut([900], batches=3) == [range(1)]


@pytest.mark.parametrize(
    ("environ", "share"),
    [
        ({}, Share(0, 1, 0)),
        ({"LOCAL_RANK": "3"}, Share(0, 1, 0)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, Share(2, 4, 0)),
        ({"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}, Share(9, 16, 1)),
    ],
)
def test_processes_know_themselves_from_their_environment(environ, share):
    assert Share.from_environment(environ) == share


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"RANK": "1"},
            "RANK and WORLD_SIZE must both be whole numbers, .* got RANK='1', WORLD_SIZE='', LOCAL_RANK=''",
        ),
        ({"RANK": "a", "WORLD_SIZE": "2"}, "must both be whole numbers"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "must both be whole numbers"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK must be below WORLD_SIZE, got RANK='2', WORLD_SIZE='2'"),
    ],
)
def test_environments_that_contradict_themselves_are_refused(environ, message):
    with pytest.raises(ValueError, match=message):
        Share.from_environment(environ)


def test_each_process_of_a_machine_takes_its_gpu(monkeypatch):
    assert device_of_rank("cpu", 3) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [device_of_rank("auto", rank) for rank in (0, 3, 5)] == [torch.device("cuda", rank) for rank in (0, 3, 1)]
    assert device_of_rank("cuda", 2) == torch.device("cuda:2")
    assert device_of_rank("cuda:1", 2) == "cuda:1"
    assert device_of_rank(None, 2) is None
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of_rank(torch.device("cuda"), 5) == torch.device("cuda:0")


def test_a_process_embeds_on_its_gpu(tmp_path, table, monkeypatch):
    asked = []
    monkeypatch.setattr(shards, "device_of_rank", lambda device, rank: asked.append((device, rank)) or "cpu")
    embed_to_file(table, TinyNet(), tmp_path / "out.safetensors", device="auto", share=Share(6, 8, local_rank=2))
    assert asked == [("auto", 2)]


def test_refuses_sources_that_processes_cannot_share(tmp_path, table):
    with pytest.raises(TypeError, match="source must be a table or a folder that all processes see, got list"):
        embed_to_file(open_source(table).tracklets, TinyNet(), tmp_path / "out.safetensors")
    with pytest.raises(TypeError, match="that all processes see, got TrackletSource"):
        run(open_source(open_source(table).tracklets), tmp_path / "out.safetensors")
    (tmp_path / "film.mp4").write_bytes(b"noise")
    with pytest.raises(ValueError, match="tracks must be given for the video"):
        run(tmp_path / "film.mp4", tmp_path / "out.safetensors")
    with pytest.raises(FileNotFoundError, match="must lie in a folder that exists"):
        run(table, tmp_path / "none" / "out.safetensors")


def test_names_and_labels_may_be_longer_than_a_header(tmp_path, monkeypatch):
    write_jpeg(tmp_path / "1.jpg", (9, 9, 9))
    names = [f"{number}{'x' * 1000}" for number in range(3)]
    rows = [
        f"1.jpg,{name},{person},{camera}" for name, person, camera in zip(names, ("bob", 7, -1), "yxy", strict=True)
    ]
    table = tmp_path / "names.csv"
    table.write_text("\n".join(["path,tracklet,pid,camid", *rows]) + "\n")
    monkeypatch.setattr("nl3d.files.LARGEST_HEADER", 3000)
    run(table, tmp_path / "out.safetensors")
    made = nl3d.Embeddings.load(tmp_path / "out.safetensors")
    assert made.names == tuple(names)
    assert (made.people, made.cameras) == (("bob", "7", "-1"), ("y", "x", "y"))
    assert (made.pids.tolist(), made.camids.tolist()) == ([1, 7, -1], [2, 1, 2])


def test_what_vectors_hang_on_is_told_apart(table):
    source = open_source(table)
    digest = shards.source_digest(source)
    table.write_text(table.read_text() + "frames/1_0.jpg,t22,11,1\n")
    longer = open_source(table)
    assert shards.source_digest(longer) != digest
    moved = [Tracklet(FrameNames("elsewhere", tracklet.frames.names)) for tracklet in source.tracklets]
    assert shards.source_digest(TrackletSource(moved)) != digest
    tracklets = [Tracklet(list(tracklet.frames)) for tracklet in source.tracklets]
    by_path = shards.source_digest(TrackletSource(tracklets))
    assert by_path != shards.source_digest(TrackletSource(tracklets[::-1]))
