import pytest

from nl3d.cli import main
from nl3d.embedding.embeddings import Embeddings
from tests.data.pictures import write_jpeg

NETWORK = ["--model", "resnet3d18", "--weights", "none", "--size", "32x16", "--num-frames", "1", "--device", "cpu"]
NETWORK += ["--batch-size", "1"]  # 64 frames a part


@pytest.fixture
def table(tmp_path):
    """A table of 80 tracklets of one frame, two parts."""
    for number in range(80):
        write_jpeg(tmp_path / "frames" / f"{number}.jpg", colour=(3 * number, 9, 99), size=(32, 16))
    rows = "".join(f"frames/{number}.jpg,{number % 5 - 1},{number % 2}\n" for number in range(80))
    (tmp_path / "people.csv").write_text("path,pid,camid\n" + rows)
    return tmp_path / "people.csv"


def run(*arguments):
    return main([str(argument) for argument in arguments])


def be(monkeypatch, rank, world):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))


def test_each_process_says_how_far_it_came(tmp_path, table, capsys, monkeypatch):
    output = tmp_path / "out.safetensors"
    told = []
    for rank, status in ((1, 2), (0, 0), (1, 0)):  # parts of a peer that are missing are no success
        be(monkeypatch, rank, 2)
        assert run("embed", table, "--output", output, *NETWORK) == status
        told.append(capsys.readouterr())
    assert f"nl3d: process 1 of 2: 1 of the 2 parts of {output} are still missing (1 of rank 0)" in told[0].err
    assert told[0].out == ""
    assert told[1].out == f"{output}: 80 tracklets, 512 numbers each (features of resnet3d18, weights none)\n"
    assert f"process 1 of 2: {output} is there already, made by this very run" in told[2].err
    result = Embeddings.load(output)
    assert result.pids.tolist() == [number % 5 - 1 for number in range(80)]
    assert result.camids.tolist() == [number % 2 for number in range(80)]
    assert result.names[7] == "frames/7.jpg"


def test_torchrun_is_not_told_of_a_peer_that_is_slower(tmp_path, table, capsys, monkeypatch):
    be(monkeypatch, 1, 2)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert run("embed", table, "--output", tmp_path / "out.safetensors", *NETWORK) == 0
    assert "are still missing (1 of rank 0)" in capsys.readouterr().err


def test_what_is_kept_after_an_error_is_said(tmp_path, table, capsys):
    output = tmp_path / "out.safetensors"
    broken = tmp_path / "frames" / "70.jpg"
    broken.write_bytes(b"noise")
    assert run("embed", table, "--output", output, *NETWORK) == 2
    first, *_, last = capsys.readouterr().err.splitlines()[1:]
    assert first == f"nl3d: finished parts are kept in {output}.parts; the same command goes on from there"
    assert "70.jpg' cannot be read" in last
    assert run("embed", table, "--output", output, "--batch-size", 2, *NETWORK[:-2]) == 2
    told = capsys.readouterr().err
    assert "1 parts of another run in" in told
    assert "are kept" not in told
    write_jpeg(broken, colour=(210, 9, 99), size=(32, 16))
    assert run("embed", table, "--output", output, *NETWORK) == 0
    assert not (tmp_path / "out.safetensors.parts").exists()


def test_skipped_frames_are_named(tmp_path, table, capsys):
    (tmp_path / "frames" / "70.jpg").write_bytes(b"noise")
    assert run("embed", table, "--output", tmp_path / "out.safetensors", "--skip-unreadable", *NETWORK) == 0
    told = capsys.readouterr()
    assert "nl3d: skipped: image" in told.err
    assert "70.jpg' cannot be read" in told.err
    assert "nl3d: dropped, since no frame of it can be read: tracklet frames/70.jpg\n" in told.err
    assert "79 tracklets" in told.out


def test_a_video_is_for_one_process(tmp_path, capsys, monkeypatch):
    be(monkeypatch, 0, 2)
    assert run("embed", "film.mp4", "--tracks", "boxes.txt", "--output", tmp_path / "out.safetensors") == 2
    assert (
        "tracks must be left out for 2 processes, since a video is decoded in order by one" in capsys.readouterr().err
    )
    monkeypatch.delenv("RANK")
    assert run("embed", "people.csv", "--output", tmp_path / "out.safetensors") == 2
    assert "RANK and WORLD_SIZE must both be whole numbers" in capsys.readouterr().err


def test_a_table_that_lacks_a_frame_is_refused_before_a_network_is_built(tmp_path, table, capsys, monkeypatch):
    (tmp_path / "frames" / "70.jpg").unlink()
    monkeypatch.setattr("nl3d.cli.embed.build_model", None)
    assert run("embed", table, "--output", tmp_path / "out.safetensors", *NETWORK) == 2
    assert "70.jpg' does not exist" in capsys.readouterr().err


def test_the_suffix_of_the_output_is_its_format(tmp_path, table, capsys):
    film, boxes = tmp_path / "frames", tmp_path / "boxes.txt"
    boxes.write_text("1,1,0,0,8,16\n2,1,0,0,8,16\n2,2,4,4,8,16\n")
    frames = tmp_path / "film"
    for number in (1, 2):
        write_jpeg(frames / f"{number}.jpg", colour=(3 * number, 9, 99), size=(32, 16))
    output = tmp_path / "out.npz"
    assert run("embed", frames, "--tracks", boxes, "--output", output, *NETWORK) == 0
    made = Embeddings.load(output)
    assert (made.names, made.frame_ranges.tolist()) == (("1", "2"), [[1, 2], [2, 2]])
    assert made.metadata["output"] == "features"
    assert run("rank", output, output, "--top", 1) == 0
    capsys.readouterr()
    for source, name in ((table, "o.npy"), (film, "o.pt"), (table, "o.txt"), (table, "o")):
        assert run("embed", source, "--output", tmp_path / name, "--overwrite", *NETWORK) == 2
        told = capsys.readouterr().err
        assert "must end in .safetensors, .npz, .parquet, .csv, .lance, which is its format" in told
    for path in (table, boxes):
        path.rename(path.with_suffix(".safetensors"))
    table, boxes = table.with_suffix(".safetensors"), boxes.with_suffix(".safetensors")
    assert run("embed", frames, "--tracks", boxes, "--output", boxes, "--overwrite", *NETWORK) == 2
    assert "must not replace an input" in capsys.readouterr().err
    assert boxes.read_text().startswith("1,1,0")
