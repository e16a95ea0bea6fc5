import pytest
import torch

from nl3d.layers.shapes import check_clips, check_finite, to_3tuple


def test_to_3tuple():
    assert to_3tuple(2, name="stride") == (2, 2, 2)
    assert to_3tuple([1, 2, 3], name="stride") == (1, 2, 3)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        to_3tuple(-1, name="padding", minimum=0)


@pytest.mark.parametrize(
    ("clips", "error", "message"),
    [
        (torch.zeros(2, 8, 3, 16, 16), ValueError, r"got \(2, 8, 3, 16, 16\); if frames precede.*transpose\(1, 2\)"),
        (torch.zeros(2, 4, 8, 16, 16), ValueError, r"with C=3, got \(2, 4, 8, 16, 16\)$"),
        (torch.zeros(3, 8, 16, 16), ValueError, r"for one clip use clips.unsqueeze\(0\)"),
        (torch.zeros(3, 8), ValueError, r"must be \(B, C, T, H, W\)"),
        (torch.zeros(2, 3, 0, 16, 16), ValueError, r"must not be empty on any axis, got \(2, 3, 0, 16, 16\)"),
        (torch.zeros(2, 3, 8, 16, 16, dtype=torch.uint8), TypeError, "must be floating point, got torch.uint8"),
        (torch.full((1, 3, 1, 2, 2), torch.nan), ValueError, "must be finite, got 12 NaN or infinite values"),
        ([1, 2], TypeError, "must be a tensor .*got list"),
    ],
)
def test_check_clips_refuses(clips, error, message):
    with pytest.raises(error, match=message):
        check_clips(clips, 3)


def test_check_finite_names_the_argument():
    with pytest.raises(ValueError, match=r"^embeddings must be finite, got 1 "):
        check_finite(torch.tensor([1.0, torch.inf]), name="embeddings")
