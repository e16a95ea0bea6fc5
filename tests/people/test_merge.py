"""Fragments of tracks become longer tracks, and the scores are TrackEval's."""

import json

import pytest
import torch

import nl3d
from nl3d.cli import main
from nl3d.data.readers.boxes import read_boxes
from nl3d.people.tracking_scores import score_tracks
from tests.data.films import write_boxes

MADE = {"network": "abc", "output": "embedding", "source": "a.mp4"}
# person, first frame, last frame of the tracks 3, 4, 7 and 9
FRAGMENTS = {3: ("ann", 1, 10), 4: ("bob", 5, 30), 7: ("ann", 15, 20), 9: ("ann", 60, 70)}
PLACES = {"ann": (0.0, 0.0), "bob": (100.0, 0.0)}


def fragments(tmp_path, **metadata):
    rows = [
        (frame, track, *PLACES[person], 10, 20)
        for track, (person, first, last) in FRAGMENTS.items()
        for frame in range(first, last + 1)
    ]
    boxes = write_boxes(tmp_path / "tracks.txt", [*rows, (80, 12, 300, 0, 10, 20)])  # 12 has no vector
    vectors = torch.tensor([[0.0, float(person == "bob")] for person, _, _ in FRAGMENTS.values()])
    ranges = torch.tensor([span for _, *span in FRAGMENTS.values()])
    ids = torch.tensor(list(FRAGMENTS))
    about = MADE | {"tracks": str(boxes)} | metadata
    return nl3d.Embeddings(vectors, ids, ranges, [str(track) for track in FRAGMENTS], metadata=about)


def test_a_person_keeps_the_least_id(tmp_path):
    merged = nl3d.merge(fragments(tmp_path), cut=0.5)
    assert merged.numbers == {"3": 3, "4": 4, "7": 3, "9": 3}
    assert repr(merged) == "Merged(4 tracks became 2, 2 joined to an earlier one)"
    assert merged.save(tmp_path / "out.txt") == 10 + 26 + 6 + 11 + 1
    written = {track.track_id: track.frames.tolist() for track in read_boxes(tmp_path / "out.txt").tracks}
    assert written[3] == [*range(1, 11), *range(15, 21), *range(60, 71)]
    assert written[12] == [80]


def test_a_gap_that_is_too_long_starts_a_new_track(tmp_path):
    for gap, last in ((39, 3), (38, 9), (4, 9), (3, 9)):
        assert nl3d.merge(fragments(tmp_path), cut=0.5, max_gap=gap).numbers["9"] == last
    assert nl3d.merge(fragments(tmp_path), cut=0.5, max_gap=3).numbers["7"] == 7
    assert nl3d.merge(fragments(tmp_path), cut=0.5, max_gap=4).numbers["7"] == 3
    with pytest.raises(ValueError, match="max_gap must be a number of frames"):
        nl3d.merge(fragments(tmp_path), max_gap=-1)


def test_tracks_from_elsewhere_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must come from a video with boxes"):
        nl3d.merge(fragments(tmp_path, tracks=""))
    merged = nl3d.merge(fragments(tmp_path), cut=0.5)
    with pytest.raises(ValueError, match="must not replace an input"):
        merged.save(tmp_path / "tracks.txt", overwrite=True)


def test_scores_against_ground_truth(tmp_path):
    pytest.importorskip("trackeval")
    merged = nl3d.merge(fragments(tmp_path), cut=0.5)
    rows = [
        (frame, 1 + (person == "bob"), *PLACES[person], 10, 20)
        for person, first, last in FRAGMENTS.values()
        for frame in range(first, last + 1)
    ]
    truth = read_boxes(write_boxes(tmp_path / "gt.txt", rows))
    before, after = score_tracks(merged.boxes, truth), score_tracks(merged.boxes, truth, merged.numbers)
    # 27 boxes of ann in three tracks of 10, 6 and 11, 26 of bob, and one box that is nobody's
    assert before.idf1 == pytest.approx(2 * (11 + 26) / (53 + 54))
    assert after.idf1 == pytest.approx(2 * 53 / (53 + 54))
    assert (before.switches, after.switches) == (2, 0)
    assert before.assa == pytest.approx((10**2 / 27 + 6**2 / 27 + 11**2 / 27 + 26) / 53)
    assert after.assa == 1
    moved = [(frame, track, left + 4, top, 10, 20) for frame, track, left, top, *_ in rows]
    overlap = 6 / 14  # below one half, so that no box is found
    assert overlap < 0.5
    assert score_tracks(read_boxes(write_boxes(tmp_path / "moved.txt", moved)), truth).idf1 == 0


def test_command(tmp_path, capsys):
    pytest.importorskip("trackeval")
    fragments(tmp_path).save(tmp_path / "a.safetensors")
    rows = [(frame, 1, 0, 0, 10, 20) for frame in range(1, 71)]
    truth = write_boxes(tmp_path / "gt.txt", rows)
    arguments = ["merge", str(tmp_path / "a.safetensors"), "--output", str(tmp_path / "out.txt"), "--cut", "0.5"]
    assert main([*arguments, "--ground-truth", str(truth)]) == 0
    told = capsys.readouterr().out
    assert "out.txt: 4 tracks became 2, 2 joined to an earlier one\nbefore  IDF1 " in told
    assert "2 identity switches\nafter   IDF1 " in told
    assert main([*arguments, "--json", "--overwrite"]) == 0
    assert json.loads(capsys.readouterr().out) == {"tracks": {"3": 3, "4": 4, "7": 3, "9": 3}}
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    nine = tmp_path / "nine.txt"
    nine.write_text("".join(f"{frame},1,0,0,10,20,1,1,0.9\n" for frame in range(1, 71)))
    assert main([*arguments, "--overwrite", "--ground-truth", str(nine), "--ground-truth-format", "mot-gt"]) == 0
    assert main([*arguments, "--overwrite", "--ground-truth", str(nine), "--ground-truth-format", "x"]) == 2
    assert "format must be one of" in capsys.readouterr().err
