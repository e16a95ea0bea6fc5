"""Printing a layer shows its options."""

import pytest

from nl3d.layers.head import BNNeckHead, ReIDHead
from nl3d.layers.non_local import NonLocalBlock3d
from nl3d.layers.pooling import ClipPool
from nl3d.layers.separable import SeparableConv3d
from nl3d.models.blocks import PadShortcut
from nl3d.models.framewise import TemporalPool


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (
            NonLocalBlock3d(8, 3, mode="gaussian", scale=True, subsample="before", time_window=2),
            "8, inner_channels=3, mode='gaussian', scale=True, subsample='before', time_window=2",
        ),
        (ReIDHead(8, 4, num_classes=3), "in_features=8, embedding_dim=4, num_classes=3"),
        (BNNeckHead(8, pool="gem"), "ClipPool('gem')"),
        (ClipPool("frame_max"), "ClipPool('frame_max')"),
        (TemporalPool("max"), "TemporalPool('max')"),
        (PadShortcut(8, (1, 2, 2)), "PadShortcut(8, stride=(1, 2, 2))"),
        (SeparableConv3d(4, 4, time_padding="replicate"), "time_padding='replicate'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_options_are_shown(layer, shown):
    assert shown in repr(layer)
