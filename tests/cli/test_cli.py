import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

import nl3d
from nl3d.cli import main
from nl3d.embedding.embeddings import Embeddings
from tests.data.films import film, write_boxes, write_video
from tests.data.pictures import write_jpeg

NETWORK = ["--model", "resnet3d18", "--weights", "none", "--size", "32x16", "--num-frames", "2", "--device", "cpu"]


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture
def people(tmp_path):
    for name, colour in (("a", (200, 0, 0)), ("b", (190, 20, 0)), ("c", (0, 0, 200))):
        for number in range(3):
            write_jpeg(tmp_path / "people" / name / f"{number}.jpg", colour=colour, size=(40, 20))
    return tmp_path / "people"


@pytest.fixture
def video(tmp_path):
    boxes = [(frame, track, 5 * track, 4, 10, 20) for frame in range(1, 6) for track in (1, 2, 9)]
    return write_video(tmp_path / "film.mkv", film(5)), write_boxes(tmp_path / "boxes.txt", boxes)


def left(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_embeds_a_video_and_ranks_it(tmp_path, video, capsys):
    output = tmp_path / "film.safetensors"
    assert run("embed", video[0], "--tracks", video[1], "--output", output, *NETWORK) == 0
    told = capsys.readouterr()
    assert told.out == f"{output}: 3 tracklets, 512 numbers each (features of resnet3d18, weights none)\n"
    assert "drawn from seed 0" in told.err
    result = Embeddings.load(output)
    assert result.track_ids.tolist() == [1, 2, 9]
    assert result.frame_ranges.tolist() == [[1, 5]] * 3
    assert result.embeddings.shape == (3, 512)
    assert (result.metadata["model"], result.metadata["weights"]) == ("resnet3d18", "none")

    picture = tmp_path / "ranking.png"
    assert run("rank", output, output, "--top", 2, "--only", 9, "--json", "--picture", picture) == 0
    (ranking,) = json.loads(capsys.readouterr().out)["rankings"]
    assert (ranking["name"], sorted(found["track_id"] for found in ranking["found"])) == ("9", [1, 2])
    with Image.open(picture) as image:
        assert image.format == "PNG"
    assert left(tmp_path) == ["boxes.txt", "film.mkv", "film.safetensors", "ranking.png"]


def test_ranks_folders_without_a_file_between(people, capsys):
    assert run("rank", people, people, "--top", 1, "--metric", "cosine", *NETWORK) == 0
    nearest = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("     1 ")]
    assert nearest[:2] == ["b", "a"]


def test_two_runs_and_python_give_the_same_vectors(tmp_path, people):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert run("embed", people, "--output", first, *NETWORK) == 0
    torch.rand(7)
    assert run("embed", people, "--output", second, "--batch-size", 1, *NETWORK) == 0
    one, other = Embeddings.load(first), Embeddings.load(second)
    torch.testing.assert_close(one.embeddings, other.embeddings)
    assert one.metadata["network"] == other.metadata["network"]
    torch.manual_seed(0)
    by_hand = nl3d.embed(people, nl3d.resnet3d18(), size=(32, 16), num_frames=2)
    torch.testing.assert_close(one.embeddings, by_hand.embeddings)


def test_boxes_outside_the_frame_are_reported(tmp_path, capsys):
    video = write_video(tmp_path / "film.mkv", film(2))
    boxes = write_boxes(tmp_path / "boxes.txt", [(1, 1, -5, 0, 20, 20), (2, 1, 99, 0, 5, 5), (1, 4, 99, 0, 5, 5)])
    assert run("embed", video, "--tracks", boxes, "--output", tmp_path / "out.safetensors", *NETWORK) == 0
    told = capsys.readouterr().err
    assert "1 boxes reached outside the frame and were clipped" in told
    assert "2 boxes lay outside the frame altogether and were dropped" in told
    assert "tracks without a box inside the frame were dropped: 4" in told


def refused(capsys, *arguments):
    """Standard error of a run that is refused in one sentence."""
    assert run(*arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("nl3d: ")
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    return told.err


def test_refusals_are_one_sentence_and_leave_nothing_behind(tmp_path, video, people, capsys):
    film_path, boxes = video
    output = tmp_path / "out.safetensors"
    before = left(tmp_path)
    (tmp_path / "bad.txt").write_text("1,1,0,0,5,5\n2,1,0,0,five,5\n")
    (tmp_path / "long.txt").write_text("77,1,0,0,5,5\n")
    (tmp_path / "noise.mp4").write_bytes(b"noise" * 999)
    (tmp_path / "hollow" / "t1").mkdir(parents=True)
    cases = [
        ((film_path,), "tracks must be given"),
        ((film_path, "--tracks", tmp_path / "bad.txt"), "bad.txt, line 2:"),
        ((film_path, "--tracks", tmp_path / "none.txt"), "none.txt' does not exist"),
        ((film_path, "--tracks", tmp_path / "long.txt"), "must have 77 frames, the last with a box, got 5"),
        ((tmp_path / "noise.mp4", "--tracks", boxes), "noise.mp4' cannot be read"),
        ((tmp_path / "none.mp4", "--tracks", boxes), "none.mp4' does not exist"),
        ((tmp_path / "hollow",), "hollow/t1' must hold images"),
        ((people, "--model", "resnet3d19"), "unknown model 'resnet3d19'; choose from: resnet3d18, "),
        ((people, "--model", "resnet3d18", "--weights", "msmt"), "unknown weights 'msmt' for resnet3d18; choose from"),
        ((people, *NETWORK, "--device", "cuda:77"), "device must be one that is there"),
    ]
    for arguments, message in cases:
        assert message in refused(capsys, "embed", *arguments, "--output", output)
    assert set(left(tmp_path)) - set(before) == {"bad.txt", "long.txt", "noise.mp4", "hollow"}


def test_an_unreadable_image_is_named_and_nothing_is_written(tmp_path, people, capsys):
    broken = people / "b" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:150])
    before = left(tmp_path)
    assert run("embed", people, "--output", tmp_path / "out.safetensors", *NETWORK) == 2
    assert f"nl3d: image '{broken}' cannot be read" in capsys.readouterr().err
    assert left(tmp_path) == before


@pytest.mark.parametrize("command", ["embed", "rank"])
def test_an_output_that_exists_is_refused_before_any_work(tmp_path, capsys, command):
    output = tmp_path / ("there.safetensors" if command == "embed" else "there.png")
    output.write_text("precious")
    source = tmp_path / "not even there"
    arguments = (source, "--output", output) if command == "embed" else (source, source, "--picture", output)
    assert "exists already" in refused(capsys, command, *arguments)
    assert output.read_text() == "precious"


def test_an_output_that_exists_is_replaced_with_overwrite(tmp_path, people):
    output = tmp_path / "out.safetensors"
    output.write_text("old")
    assert run("embed", people, "--output", output, "--overwrite", *NETWORK) == 0
    assert len(Embeddings.load(output)) == 3


def test_an_interrupt_leaves_nothing_behind(tmp_path, people, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    before = left(tmp_path)
    monkeypatch.setattr("nl3d.files.save", interrupted)
    assert run("embed", people, "--output", tmp_path / "out.safetensors", *NETWORK) == 130
    assert capsys.readouterr().err.endswith("nl3d: interrupted, nothing was written\n")
    assert left(tmp_path) == before


def test_out_of_memory_says_what_to_lower(people, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n2 GiB")

    monkeypatch.setattr("nl3d.embedding.embedder.TrackletEmbedder.vectors", full)
    assert run("embed", people, "--output", tmp_path / "out.safetensors", *NETWORK) == 2
    assert "nl3d: out of memory; lower --batch-size\n" in capsys.readouterr().err


def test_a_fault_of_ours_shows_its_traceback(people, tmp_path, monkeypatch):
    def faulty(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr("nl3d.embedding.embedder.TrackletEmbedder.vectors", faulty)
    with pytest.raises(RuntimeError, match="a bug"):
        run("embed", people, "--output", tmp_path / "out.safetensors", *NETWORK)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        run("--traceback", "rank", tmp_path / "a.safetensors", tmp_path / "a.safetensors")


BAD_OPTIONS = [("--batch-size", "0"), ("--num-frames", "2.5"), ("--top", "-1"), ("--size", "256"), ("--size", "0x9")]


@pytest.mark.parametrize(("option", "value"), BAD_OPTIONS)
def test_options_out_of_range_are_refused(capsys, option, value):
    with pytest.raises(SystemExit) as stopped:
        main(["rank", "a", "b", f"{option}={value}"])
    assert stopped.value.code == 2
    assert f"argument {option}: must be" in capsys.readouterr().err


def test_lists_every_model_and_its_weights(capsys):
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["MODEL", "WEIGHTS"]
    listed = [*nl3d.list_models(), "inflated:tf_efficientnet_lite0"]
    assert {line.split()[0] for line in lines[1:]} == set(listed)
    assert len([line for line in lines[1:] if line.split()[1] != "-"]) == sum(
        len(nl3d.list_weights(model)) for model in listed
    )
    assert run("list", "--model", "resnet3d50_nl") == 0
    assert "timm/resnet50.tv_in1k" in capsys.readouterr().out
    assert "unknown model 'x'" in refused(capsys, "list", "--model", "x")


def test_help_costs_no_torch():
    code = "import sys\nfrom nl3d.cli import build_parser\nbuild_parser().format_help()\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    people = Embeddings(torch.randn(400, 2), torch.arange(400), torch.ones(400, 2).long(), tuple(map(str, range(400))))
    path = tmp_path / "people.safetensors"
    people.save(path)
    command = f"{sys.executable} -m nl3d.cli rank {path} {path} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "query 0 (frames 1-1)\n"
    assert done.stderr == ""
