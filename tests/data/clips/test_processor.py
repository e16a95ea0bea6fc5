import dataclasses
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2.functional import resize

import nl3d
from nl3d.data.clips.processor import IMAGENET_MEAN, IMAGENET_STD, ClipProcessor
from nl3d.data.tracklets import Tracklet
from tests.data.pictures import write_jpeg

PROCESSOR = ClipProcessor(4, 2, (24, 12), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
CONFIG = {"input_size": (3, 32, 16), "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "num_frames": 4, "frame_step": 2}


def frames(count=5, height=40, width=30):
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8)


def prepared(image):
    mean, std = (torch.tensor(values).view(3, 1, 1).double() for values in (PROCESSOR.mean, PROCESSOR.std))
    return (resize(image, [24, 12], antialias=True).double() / 255 - mean) / std


def test_every_form_of_frames_gives_the_same_clip():
    images = frames()
    expected = torch.stack([prepared(image) for image in images], 1).float()
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    forms = [
        images,
        list(images),
        np.stack(arrays),
        arrays,
        [Image.fromarray(array) for array in arrays],
        (image for image in images),
        Tracklet(images),
    ]
    for form in forms:
        clip = PROCESSOR(form)
        assert clip.shape == (3, 5, 24, 12)
        assert clip.is_contiguous()
        torch.testing.assert_close(clip, expected)
    for one in (images[2], arrays[2], Image.fromarray(arrays[2])):
        torch.testing.assert_close(PROCESSOR(one), expected[:, 2:3])


def test_frames_of_different_sizes_are_resized_once_each():
    images = [frames(1, 40, 30)[0], frames(1, 13, 70)[0], frames(1, 24, 12)[0]]
    expected = torch.stack([prepared(image) for image in images], 1).float()
    torch.testing.assert_close(PROCESSOR(images), expected)


def test_files_are_decoded(tmp_path):
    paths = [write_jpeg(tmp_path / f"{n}.jpg", colour=(9 * n, 99, 3), size=(30, 20)) for n in range(3)]
    decoded = [Image.open(path) for path in (tmp_path / f"{n}.jpg" for n in range(3))]
    paths = [tmp_path / f"{n}.jpg" for n in range(3)]
    assert torch.equal(PROCESSOR(paths), PROCESSOR(decoded))
    assert torch.equal(PROCESSOR(str(paths[1])), PROCESSOR(decoded[1]))


def test_bgr_is_turned_round_where_it_is_said_and_refused_where_it_cannot_be(tmp_path):
    images = frames()
    bgr = images.flip(1)
    for form in (bgr, list(bgr), bgr.permute(0, 2, 3, 1).numpy()):
        assert torch.equal(PROCESSOR(form, order="bgr"), PROCESSOR(images))
        assert torch.equal(PROCESSOR.clips(form, order="bgr"), PROCESSOR.clips(images))
    write_jpeg(tmp_path / "1.jpg")
    with pytest.raises(ValueError, match="order must be 'rgb' for frames that know their own, got 'bgr' with"):
        PROCESSOR([tmp_path / "1.jpg"], order="bgr")
    with pytest.raises(ValueError, match="order must be 'rgb' or 'bgr', got 'RGB'"):
        PROCESSOR(images, order="RGB")


def test_a_tracklet_is_cut_as_embed_cuts_it():
    tracklet = Tracklet(frames(11), pid=1)
    clips = PROCESSOR.clips(tracklet)
    assert clips.shape == (2, 3, 4, 24, 12)
    for clip, places in zip(clips, ([0, 2, 4, 6], [8, 10, 8, 10]), strict=True):
        assert torch.equal(clip, PROCESSOR([tracklet.frames[place] for place in places]))


def test_networks_carry_their_own():
    network = nl3d.resnet3d18().eval()
    network.pretrained_cfg.update(CONFIG)
    assert network.processor == ClipProcessor(4, 2, (32, 16), CONFIG["mean"], CONFIG["std"])
    tracklet = Tracklet(frames(11), pid=1)
    with torch.no_grad():
        by_hand = network(network.processor.clips(tracklet)).features.mean(0)
    torch.testing.assert_close(nl3d.embed([tracklet], network).embeddings[0], by_hand, rtol=1e-5, atol=1e-5)
    assert nl3d.resnet3d18_nl("bundled").processor == ClipProcessor(4, 8, (96, 48), IMAGENET_MEAN, IMAGENET_STD)


def test_what_is_given_wins_and_what_is_missing_is_named():
    assert ClipProcessor.of(CONFIG, size=(8, 4), num_frames=2).size == (8, 4)
    with pytest.warns(UserWarning, match=r"of Linear must say how frames are prepared, .* size=\(256, 128\), mean="):
        assert ClipProcessor.of(nn.Linear(1, 1)) == ClipProcessor()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ClipProcessor.of({key: CONFIG[key] for key in ("mean", "std", "input_size")})
    with pytest.warns(UserWarning, match=r"taking std=\(0.229"):
        ClipProcessor.of({key: CONFIG[key] for key in ("mean", "input_size")})


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([], ValueError, "frames must be at least one, got none"),
        (torch.zeros(2, 3, 8, 4), TypeError, "must hold uint8 values from 0 to 255, got torch.float32"),
        (torch.zeros(2, 8, 4, 3, dtype=torch.uint8), ValueError, r"tensor \(3, H, W\) or an array \(H, W, 3\), got"),
        (np.zeros((3, 8, 4), np.uint8), ValueError, r"tensor \(3, H, W\) or an array \(H, W, 3\), got"),
        ([5], TypeError, "frame must be a file name, an image"),
    ],
)
def test_refuses_what_is_no_frame(value, error, message):
    with pytest.raises(error, match=message):
        PROCESSOR(value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"size": (0, 4)}, r"size must be \(height, width\), each at least 1, got \(0, 4\)"),
        ({"mean": (0.5,)}, "mean must be three numbers, one per colour"),
        ({"std": (0.5, 0, 0.5)}, "std must be three numbers, one per colour"),
    ],
)
def test_refuses_values(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PROCESSOR, **changes)
