import json

import pytest
import torch
from torch import nn

import nl3d
from nl3d.data.clips.sampling import consecutive_clips
from nl3d.data.tracklets import Tracklet
from nl3d.embedding.network import choose_layer, pick_device, seeded
from nl3d.models.fingerprint import fingerprint
from tests.data.films import damage_packet, film, write_boxes, write_greys, write_video
from tests.embedding.people import TinyNet


def tracklets(*lengths):
    """Frames of the size that TinyNet takes, so that nothing is resized."""
    return [
        Tracklet(torch.randint(0, 256, (length, 3, 24, 12), dtype=torch.uint8), pid=9 - place, camid=place % 2)
        for place, length in enumerate(lengths)
    ]


def averaged(model, frames, num_frames=4, frame_step=1):
    """One clip after another, in float64."""
    config = model.pretrained_cfg
    mean, std = (torch.tensor(config[key], dtype=torch.float64).view(3, 1, 1) for key in ("mean", "std"))
    vectors = []
    for places in consecutive_clips(len(frames), num_frames, frame_step):
        clip = torch.stack([(frames[place].double() / 255 - mean) / std for place in places], dim=1)
        vectors.append(model.double()(clip[None]).features[0])
    model.float()
    return torch.stack(vectors).mean(0)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize(("num_frames", "frame_step"), [(4, 1), (2, 3)])
def test_averages_the_vectors_of_consecutive_clips(batch_size, num_frames, frame_step):
    model, people = TinyNet(), tracklets(9, 1, 4, 17)
    result = nl3d.embed(people, model, batch_size=batch_size, num_frames=num_frames, frame_step=frame_step)
    assert result.embeddings.dtype == torch.float32
    assert result.embeddings.shape == (4, 24)
    for row, tracklet in enumerate(people):
        expected = averaged(model, tracklet.frames, num_frames, frame_step)
        torch.testing.assert_close(result.embeddings[row].double(), expected, rtol=1e-5, atol=1e-6)
    assert result.frame_ranges.tolist() == [[1, 9], [1, 1], [1, 4], [1, 17]]
    assert result.names == ("1", "2", "3", "4")
    assert result.pids.tolist() == [9, 8, 7, 6]
    assert result.camids.tolist() == [0, 1, 0, 1]


def test_a_video_gives_what_its_boxes_cut_out_by_hand_give(tmp_path):
    images = film(11)
    rows = [(frame, 5, 6 + frame, 8, 12, 24) for frame in range(2, 12)] + [(7, 2, 60, 40, 12, 24), (3, 9, 99, 0, 5, 5)]
    video, boxes = write_video(tmp_path / "film.mkv", images), write_boxes(tmp_path / "boxes.txt", rows)
    model = TinyNet()
    result = nl3d.embed(video, model, tracks=boxes)
    crops = torch.stack(
        [
            torch.from_numpy(images[frame - 1, 8:32, 6 + frame : 18 + frame].copy()).permute(2, 0, 1)
            for frame in range(2, 12)
        ]
    )
    torch.testing.assert_close(result.embeddings[1].double(), averaged(model, crops), rtol=1e-5, atol=1e-6)
    assert result.track_ids.tolist() == [2, 5]
    assert result.frame_ranges.tolist() == [[7, 7], [2, 11]]
    assert result.pids is None
    assert result.metadata["source"] == str(video.resolve())
    assert result.metadata["tracks"] == str(boxes.resolve())
    assert json.loads(result.metadata["notes"]) == {
        "clipped_boxes": 1,
        "dropped_boxes": 1,
        "dropped_tracks": ["9"],
        "unreadable_frames": 0,
        "left_out_boxes": {},
        "box_classes": {},
    }
    assert json.loads(result.metadata["preprocessing"])["size"] == [24, 12]
    assert result.metadata["model"] == "tiny"


def test_the_network_runs_in_evaluation_mode_and_keeps_its_own():
    model = TinyNet().train()
    model.dropout.eval()
    first = nl3d.embed(tracklets(3), model, output_layer="embedding")
    assert first.embeddings.shape == (1, 5)
    assert model.training
    assert not model.dropout.training
    assert not torch.is_inference(first.embeddings)


@pytest.mark.parametrize(
    ("new", "layer"),
    [
        (None, "features"),
        ((), "embedding"),
        (("head.fc.weight", "layer2.non_local1.theta.weight"), "features"),
        (("head.classifier.weight",), "embedding"),
        (("layer2.non_local1.theta.weight",), "embedding"),
    ],
)
def test_auto_takes_the_embedding_only_where_weights_filled_it(new, layer):
    model = TinyNet()
    if new is not None:
        model.new_tensors = new
    assert choose_layer(model) == layer
    assert nl3d.embed(tracklets(1), model).metadata["output"] == layer


def test_takes_a_network_that_returns_a_tensor_and_has_no_configuration():
    model = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())
    with pytest.warns(UserWarning, match=r"pretrained_cfg of Sequential must say .* mean=\(0.485, .* 8 frames"):
        result = nl3d.embed(tracklets(2), model, size=(16, 8))
    assert result.embeddings.shape == (1, 3)
    assert json.loads(result.metadata["preprocessing"])["num_frames"] == 8


def test_options_win_over_the_network_s_own():
    model = TinyNet()
    nl3d.embed(tracklets(6), model, num_frames=3, size=(10, 6), batch_size=8)
    assert model.seen == [(2, 3, 3, 10, 6)]


def test_amp_computes_in_half_precision():
    model, people = TinyNet(), tracklets(5)
    exact = nl3d.embed(people, model, output_layer="embedding")
    half = nl3d.embed(people, model, output_layer="embedding", amp=True)
    assert not torch.equal(exact.embeddings, half.embeddings)
    torch.testing.assert_close(exact.embeddings, half.embeddings, rtol=0.05, atol=0.05)


def test_equal_networks_have_equal_fingerprints():
    first, second = seeded(TinyNet), seeded(TinyNet)
    assert fingerprint(first) == fingerprint(second)
    with torch.no_grad():
        second.fc.bias[0] += 1
    assert fingerprint(first) != fingerprint(second)


def test_seeding_leaves_the_random_state_alone():
    before = torch.random.get_rng_state()
    seeded(TinyNet)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"frame_step": -1}, "frame_step must be at least 1, got -1"),
        ({"size": (0, 8)}, r"size must be \(height, width\), each at least 1, got \(0, 8\)"),
        ({"output_layer": "logits"}, "output_layer must be one of 'auto', 'features', 'embedding', got 'logits'"),
        ({"device": "abacus"}, "device must be one that is there, such as 'cpu', got 'abacus'"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        nl3d.embed(tracklets(2), TinyNet(), **options)


def test_refuses_boxes_that_are_all_outside(tmp_path):
    video = write_video(tmp_path / "film.mkv", film(2))
    boxes = write_boxes(tmp_path / "boxes.txt", [(1, 1, 200, 0, 5, 5)])
    with pytest.raises(ValueError, match="tracks must have a box inside the frames, got none"):
        nl3d.embed(video, TinyNet(), tracks=boxes)


def test_refuses_vectors_that_are_not_finite():
    model = TinyNet()
    nn.init.constant_(model.fc.bias, float("nan"))
    with pytest.raises(ValueError, match=r"embeddings must be finite, .* for tracklet '1'"):
        nl3d.embed(tracklets(2), model, output_layer="embedding")


def test_a_failing_decoder_stops_the_network():
    people = [*tracklets(40), Tracklet([Broken()])]
    with pytest.raises(ValueError, match="this frame is broken"):
        nl3d.embed(people, TinyNet(), batch_size=2)


def test_auto_picks_a_device_that_is_there():
    assert torch.zeros(1, device=pick_device("auto")).sum() == 0


@pytest.mark.cuda
def test_on_a_gpu_the_vectors_are_the_same():
    model, people = TinyNet(), tracklets(9, 5)
    expected = nl3d.embed(people, model).embeddings
    torch.testing.assert_close(nl3d.embed(people, model, device="cuda").embeddings, expected, rtol=1e-4, atol=1e-5)
    nl3d.embed(people, model, device="cuda", amp=True)


@pytest.mark.parametrize("shown", [False, True])
def test_the_progress_bar_counts_frames_to_the_end(capsys, shown):
    nl3d.embed(tracklets(9, 3), TinyNet(), progress=shown, batch_size=2)
    told = capsys.readouterr().err
    assert ("100%" in told and "12/12" in told) == shown
    assert shown or not told


def test_parts_leave_the_order_and_the_vectors_as_they_are():
    model, people = TinyNet(), tracklets(*[1 + place % 9 for place in range(150)])
    result = nl3d.embed(people, model, batch_size=1)  # 64 clips a part
    expected = torch.stack([averaged(model, tracklet.frames) for tracklet in people]).float()
    torch.testing.assert_close(result.embeddings, expected, rtol=1e-5, atol=1e-6)
    assert result.names[70] == "71"


class Broken:
    def read(self):
        raise ValueError("this frame is broken")


def test_unreadable_frames_are_skipped_only_when_asked():
    people = tracklets(9, 4)
    people.insert(1, Tracklet([Broken()] * 3, pid=1, camid=1, name="lost"))
    people[0] = Tracklet([*people[0].frames[:2], Broken(), *people[0].frames[3:]], pid=5, camid=6)
    result = nl3d.embed(people, TinyNet(), skip_unreadable=True)
    assert result.names == ("1", "3")
    assert result.frame_ranges.tolist() == [[1, 9], [1, 4]]
    assert json.loads(result.metadata["notes"])["unreadable_frames"] == 4
    assert json.loads(result.metadata["notes"])["dropped_tracks"] == ["lost"]
    with pytest.raises(ValueError, match="tracklets must have a readable frame, got none: this frame is broken"):
        nl3d.embed(people[1:2], TinyNet(), skip_unreadable=True)


def test_boxes_in_damaged_frames_of_a_video_are_left_out_and_counted(tmp_path):
    video = write_greys(tmp_path / "film.mp4", codec="mpeg4")
    assert damage_packet(video, 20) == 21
    rows = [
        (frame, track, 2, 2, 9, 9) for track, frames in {1: range(15, 22), 2: [21], 3: [22]}.items() for frame in frames
    ]
    boxes = write_boxes(tmp_path / "boxes.txt", rows)
    with pytest.raises(ValueError, match=r"cannot be read after frame 20: .*--skip-unreadable"):
        nl3d.embed(video, TinyNet(), tracks=boxes)
    result = nl3d.embed(video, TinyNet(), tracks=boxes, skip_unreadable=True)
    assert result.names == ("1", "3")
    assert result.frame_ranges.tolist() == [[15, 20], [22, 22]]
    notes = json.loads(result.metadata["notes"])
    assert (notes["unreadable_frames"], notes["dropped_tracks"]) == (2, ["2"])
