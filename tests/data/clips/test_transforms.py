import pytest
import torch
from torchvision.transforms.v2 import functional as F

from nl3d.data.clips.processor import IMAGENET_MEAN, IMAGENET_STD, normalise_clips
from nl3d.data.clips.sampling import generator_from
from nl3d.data.clips.transforms import ClipTransform

# every pixel of a frame differs from the others, and all frames are equal
FRAME = torch.arange(3 * 36 * 18).remainder(251).to(torch.uint8).view(3, 36, 18)
STILL = FRAME.expand(5, -1, -1, -1)


def training(**options):
    return ClipTransform((32, 16), training=True, normalise=False, **options)


def test_every_draw_is_one_for_the_whole_clip():
    transform = training(erase_probability=1.0, enlarge_probability=0.5)
    results = set()
    for seed in range(40):
        clip = transform(STILL, generator_from(seed))
        assert clip.shape == (3, 5, 32, 16)
        assert (clip == clip[:, :1]).all()
        results.add(clip.numpy().tobytes())
    assert len(results) == 40


def test_crops_are_cut_from_the_enlarged_clip():
    large = F.resize(FRAME, [36, 18])  # already of the enlarged size
    places = set()
    for seed in range(150):
        clip = training(flip_probability=0)(STILL, generator_from(seed))[:, 0]
        found = [
            (top, left)
            for top in range(5)
            for left in range(3)
            if torch.equal(large[:, top : top + 32, left : left + 16], clip)
        ]
        assert len(found) == 1
        places.update(found)
    assert places == {(top, left) for top in range(5) for left in range(3)}


def test_not_enlarged_is_not_cropped():
    clip = training(enlarge_probability=0, flip_probability=0)(STILL, generator_from(0))
    assert torch.equal(clip[:, 0], F.resize(FRAME, [32, 16], antialias=True))


def test_flip_mirrors():
    options = {"enlarge_probability": 0}
    straight = training(flip_probability=0, **options)(STILL, generator_from(0))
    mirrored = training(flip_probability=1, **options)(STILL, generator_from(0))
    assert torch.equal(mirrored, straight.flip(-1))
    assert not torch.equal(mirrored, straight)


def test_erasing_leaves_the_mean_colour():
    white = torch.full((2, 3, 32, 16), 255, dtype=torch.uint8)
    shares = []
    for seed in range(50):
        clip = ClipTransform((32, 16), training=True, enlarge_probability=0, erase_probability=1)(
            white, generator_from(seed)
        )
        erased = clip.abs().amax(0) < 0.02  # of a deviation: what rounding to uint8 leaves
        assert torch.equal(erased[0], erased[1])
        shares.append(erased.float().mean().item())
    assert 0.02 < min(shares)
    assert max(shares) < 0.45


def test_testing_only_resizes():
    transform = ClipTransform((32, 16))
    clip = transform(STILL)
    resized = F.resize(FRAME, [32, 16], antialias=True).double() / 255
    expected = (resized - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    torch.testing.assert_close(clip[:, 2].double(), expected, atol=1e-6, rtol=1e-6)
    assert clip.dtype == torch.float32
    assert clip.is_contiguous()
    assert type(clip) is torch.Tensor


def test_normalising_later_is_the_same():
    frames = torch.randint(256, (4, 3, 20, 10), dtype=torch.uint8)
    now = ClipTransform((32, 16), training=True)(frames, generator_from(3))
    later = ClipTransform((32, 16), training=True, normalise=False)(frames, generator_from(3))
    assert later.dtype == torch.uint8
    torch.testing.assert_close(normalise_clips(later.unsqueeze(0))[0], now, atol=0, rtol=0)


@pytest.mark.cuda
def test_normalising_on_a_gpu():
    clips = torch.randint(256, (2, 3, 4, 20, 10), dtype=torch.uint8)
    torch.testing.assert_close(normalise_clips(clips.cuda()).cpu(), normalise_clips(clips))


def test_the_generator_decides_and_torch_s_own_is_untouched():
    frames = torch.randint(256, (4, 3, 20, 10), dtype=torch.uint8)
    transform = training(erase_probability=0.5)
    state = torch.get_rng_state()
    first = transform(frames, generator_from(8))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(transform(frames, generator_from(8)), first)


def test_without_a_generator_torch_s_own_decides():
    transform = training()
    torch.manual_seed(4)
    first = transform(STILL)
    assert not torch.equal(transform(STILL), first)
    torch.manual_seed(4)
    assert torch.equal(transform(STILL), first)


def test_refusals():
    transform = ClipTransform()
    with pytest.raises(TypeError, match=r"frames must be uint8 tensors, got torch.float32"):
        transform(torch.zeros(2, 3, 8, 4))
    with pytest.raises(ValueError, match=r"frames must be \(T, 3, H, W\) or images \(3, H, W\), got \(3, 2, 8, 4\)"):
        transform(torch.zeros(3, 2, 8, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="flip_probability must be from 0 to 1, got 2"):
        ClipTransform(flip_probability=2)
    with pytest.raises(ValueError, match=r"enlarge must be at least 1, got 0.9"):
        ClipTransform(enlarge=0.9)
