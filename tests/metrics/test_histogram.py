from __future__ import annotations

import colorsys

import pytest
import torch

from nl3d.metrics import evaluate
from nl3d.metrics.histogram import hue_saturation_value, stripe_histogram
from nl3d.walkers import WalkerTracklets, WalkerWorld


def test_hue_saturation_value_is_that_of_the_standard_library():
    rgb = torch.rand(3, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rgb[:, 0, :4] = torch.tensor([[0.0, 1.0, 0.5, 0.2], [0.0, 1.0, 0.5, 0.7], [0.0, 1.0, 0.5, 0.7]])  # greys and a tie
    expected = torch.tensor([[colorsys.rgb_to_hsv(*pixel) for pixel in row] for row in rgb.permute(1, 2, 0).tolist()])
    torch.testing.assert_close(torch.stack(hue_saturation_value(rgb), -1).float(), expected)


def test_counts_by_hand():
    frames = torch.zeros(2, 3, 4, 3)
    frames[:, 0, :2] = 1.0  # the upper half red, the lower black
    frames[1, :, 0, 0] = torch.tensor([0.0, 1.0, 0.0])  # one of 24 pixels green
    counts = stripe_histogram(frames, 2, bins=(3, 2, 2)).square().view(2, 3, 2, 2) * 24
    expected = torch.zeros(2, 3, 2, 2)
    expected[0, 0, 1, 1], expected[0, 1, 1, 1], expected[1, 0, 0, 0] = 11, 1, 12
    torch.testing.assert_close(counts, expected)


@pytest.mark.parametrize("stripes", [1, 5, 6])
def test_batches_bytes_and_length(stripes):
    frames = torch.randint(0, 256, (3, 2, 3, 13, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = stripe_histogram(frames, stripes)
    torch.testing.assert_close(together, torch.stack([stripe_histogram(one, stripes) for one in frames]))
    torch.testing.assert_close(together, stripe_histogram(frames.float() / 255, stripes))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_knows_walkers_by_their_clothes_but_not_those_dressed_alike():
    world = WalkerWorld(size=(64, 32), num_identities=36, num_test=36, alike=0.0, difficulty=0.5)

    def rank1(world: WalkerWorld) -> float:
        query, gallery = (WalkerTracklets(world, split, num_frames=2, step=9) for split in ("query", "gallery"))
        embeddings = {key: stripe_histogram(gallery[place][0]) for place, key in enumerate(gallery.keys)}
        q, g = (torch.stack([embeddings[key] for key in keys]) for keys in (query.keys, gallery.keys))
        return evaluate(q, g, query.pids, gallery.pids, query.camids, gallery.camids).cmc[1]

    assert 0.2 < rank1(world) < 0.95  # chance is about 0.02
    alike = WalkerWorld(size=(64, 32), num_identities=4, num_test=4, alike=1.0, cameras_per_identity=6, difficulty=0.0)
    assert rank1(alike) < 0.5  # chance is about 0.24


@pytest.mark.parametrize(
    ("frames", "stripes", "error", "message"),
    [
        (torch.zeros(3, 8, 8), 6, ValueError, r"frames must be \(T, 3, H, W\) or \(B, T, 3, H, W\), got \(3, 8, 8\)"),
        (torch.zeros(2, 3, 4, 8, 8), 6, ValueError, r"for clips \(B, 3, T, H, W\) use clips.transpose\(1, 2\)"),
        (torch.zeros(0, 3, 8, 8), 6, ValueError, "frames must not be empty on any axis"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), 6, TypeError, "frames must be uint8 or floating point"),
        (torch.zeros(1, 3, 8, 8), 9, ValueError, "stripes must be from 1 to the 8 rows of the frames, got 9"),
    ],
)
def test_refuses(frames, stripes, error, message):
    with pytest.raises(error, match=message):
        stripe_histogram(frames, stripes)
