import json

import pytest
import torch
from PIL import Image

from nl3d.cli import main
from nl3d.embedding.embeddings import Embeddings
from nl3d.gallery.gallery import Gallery
from tests.data.films import film, write_boxes, write_video
from tests.embedding.people import embeddings

NETWORK = ["--model", "resnet3d18", "--weights", "none", "--size", "32x16", "--num-frames", "2", "--device", "cpu"]


@pytest.fixture
def run(capsys):
    def act(verb, *arguments):
        status = main(["gallery", verb, *map(str, arguments)])
        told = capsys.readouterr()
        return status, told.out, told.err

    return act


def test_two_days_from_a_video_to_an_empty_gallery(tmp_path, run):
    pytest.importorskip("av")
    boxes = [(frame, track, 5 * track, 4, 10, 20) for frame in range(1, 6) for track in (1, 2, 9)]
    video = write_video(tmp_path / "film.mkv", film(5))
    tracks = write_boxes(tmp_path / "boxes.txt", boxes)
    path, source = tmp_path / "people.gallery", [video, "--tracks", tracks, *NETWORK]
    times = ["--start", "2026-11-30T08:00:00Z", "--fps", 5]
    status, out, _ = run("add", path, *source, "--camera", "door", "--prefix", "monday/", *times)
    assert (status, out) == (0, f"{path}: 3 tracklets added with 3 thumbnails, 3 in all\n")
    picture = tmp_path / "found.png"
    status, out, _ = run("find", path, *source, "--top", 2, "--json", "--only", 9, "--picture", picture)
    (query,) = json.loads(out)["queries"]
    assert (status, query["name"], query["found"][0]["name"]) == (0, "9", "monday/9")
    assert query["found"][0]["distance"] == pytest.approx(0, abs=1e-5)
    assert query["found"][0]["seen"] == ["2026-11-30T08:00:00Z", "2026-11-30T08:00:00Z"]
    assert Image.open(picture).format == "PNG"
    status, out, _ = run("find", path, *source, "--top", 1, "--camera", "door", "--since", "2026-11-30T07:00:00Z")
    assert out.splitlines()[:2] == [
        "query 1", "  rank  tracklet  person  camera  frames  first seen            distance",
    ]  # fmt: skip
    status, out, _ = run("list", path, "--thumbnails", tmp_path / "pictures")
    assert [line.split()[0] for line in out.splitlines()] == ["tracklet", "monday/1", "monday/2", "monday/9"]
    assert len(list((tmp_path / "pictures").iterdir())) == 3
    assert json.loads(run("stats", path, "--json")[1])["tracklets"] == 3
    assert "tracklets        3\n" in run("stats", path)[1]
    assert run("remove", path, "--name", "monday/1")[1] == f"{path}: 1 tracklets removed, 2 left\n"
    assert run("prune", path, "--older-than", "0s", "--camera", "window")[1] == f"{path}: 0 tracklets removed, 2 left\n"
    assert run("optimize", path)[0] == 0
    with Gallery(path) as gallery:
        assert gallery.remove(camera="door") == 2


def test_refusals_are_one_sentence(tmp_path, run):
    path, first = tmp_path / "people.gallery", tmp_path / "first.safetensors"
    embeddings(torch.randn(3, 4), metadata={"network": "aa", "source": str(tmp_path / "gone")}).save(first)
    Embeddings(torch.randn(2, 4), names=("x", "y"), metadata={"network": "bb"}).save(tmp_path / "other.safetensors")
    status, _, err = run("add", path, first)
    assert (status, "no thumbnails were added: source" in err) == (0, True)
    for arguments, message in (
        (("add", path, first), "got 't0'; a prefix makes them differ"),
        (("add", path, tmp_path / "other.safetensors"), "must come from the same network"),
        (("find", path, tmp_path / "other.safetensors"), "must come from the same network"),
        (("add", tmp_path, first), "got a folder"),
        (("find", tmp_path / "none", first), "does not exist; nl3d gallery add makes it"),
        (("remove", path), "must say what to remove"),
        (("remove", path, "--person", "zoe"), "has no tracklet of person 'zoe'; nothing was removed"),
        (("prune", path, "--older-than", "soon"), "such as 30d, got 'soon'"),
    ):
        status, out, err = run(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
