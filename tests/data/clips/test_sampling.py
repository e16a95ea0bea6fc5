import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nl3d.data.clips.sampling import STRATEGIES, generator_from, sample_clips

steps = {"stride": 8, "consecutive": 1, "dense": 1}


def looped(frames, count):
    return [frames[place % len(frames)] for place in range(count)]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.sampled_from(STRATEGIES), st.integers(1, 300), st.integers(1, 12), st.integers(0, 9) | st.none())
def test_every_clip_is_full_inside_and_in_order(strategy, length, num_frames, seed):
    generator = None if seed is None else generator_from(seed)
    clips = sample_clips(length, num_frames, strategy, generator=generator)
    assert len(clips) == (-(-length // num_frames) if strategy == "dense" else 1)
    for clip in clips:
        assert len(clip) == num_frames
        assert all(0 <= index < length for index in clip)
        distinct = clip[: len(set(clip))]
        assert distinct == sorted(set(clip))  # in the order of time
        if strategy == "chunk_start":
            assert clip == distinct + distinct[-1:] * (num_frames - len(distinct))
        else:
            assert clip == looped(distinct, num_frames)  # and round again, where there are too few


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 100), st.integers(1, 9), st.integers(1, 4))
def test_dense_takes_every_frame_that_its_step_meets_once(length, num_frames, step):
    clips = sample_clips(length, num_frames, "dense", frame_step=step)
    met = [index for clip in clips for index in dict.fromkeys(clip)]
    assert met == list(range(0, length, step))


def test_stride_is_the_paper_s_clip():
    starts = set()
    for seed in range(200):
        (clip,) = sample_clips(70, 8, "stride", generator=generator_from(seed))
        assert clip == list(range(clip[0], clip[0] + 64, 8))
        starts.add(clip[0])
    assert starts == set(range(7))  # 64 consecutive frames begin at 0 to 6


@pytest.mark.parametrize("length", [63, 60, 20, 9])
def test_stride_in_short_tracklets(length):
    seen = set()
    for seed in range(100):
        (clip,) = sample_clips(length, 8, "stride", generator=generator_from(seed))
        assert clip == looped(list(range(clip[0], length, 8)), 8)
        seen.update(clip)
    assert seen == set(range(length))  # every frame has its chance


def test_restricted_random_draws_one_of_each_part():
    seen = [set() for _ in range(4)]
    for seed in range(200):
        (clip,) = sample_clips(10, 4, "restricted_random", generator=generator_from(seed))
        for part, index in zip(seen, clip, strict=True):
            part.add(index)
    assert seen == [{0, 1}, {2, 3, 4}, {5, 6}, {7, 8, 9}]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_same_generator_same_clip_and_torch_s_own_is_untouched(strategy):
    state = torch.get_rng_state()
    first = sample_clips(300, 8, strategy, generator=generator_from(1, 2))
    assert sample_clips(300, 8, strategy, generator=generator_from(1, 2)) == first
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("strategy", "clips"),
    [
        ("stride", [[18, 26, 34, 42]]),
        ("consecutive", [[32, 33, 34, 35]]),
        ("evenly", [[8, 25, 42, 59]]),
        ("restricted_random", [[8, 25, 42, 59]]),
    ],
)
def test_without_a_generator_clips_come_from_the_middle(strategy, clips):
    assert sample_clips(68, 4, strategy) == clips


def test_seeds_do_not_run_into_each_other():
    draws = [
        tuple(torch.randint(2**31, (4,), generator=generator_from(a, b)).tolist()) for a in range(9) for b in range(9)
    ]
    assert len(set(draws)) == 81
    with pytest.raises(ValueError, match="seeds must be at least 0, got -1"):
        generator_from(0, -1)


def test_refusals():
    with pytest.raises(ValueError, match=r"strategy must be one of 'stride', .* got 'all'"):
        sample_clips(9, 8, "all")
    with pytest.raises(ValueError, match="frame_step must be left out for 'evenly', got 2"):
        sample_clips(9, 8, "evenly", frame_step=2)
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        sample_clips(0, 8)
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        sample_clips(9, 0)
    with pytest.raises(ValueError, match="frame_step must be at least 1, got 0"):
        sample_clips(9, 8, frame_step=0)


@pytest.mark.parametrize(
    ("length", "clip"),
    [
        (1, [0, 0, 0, 0, 0, 0, 0, 0]),
        (5, [0, 1, 2, 3, 4, 4, 4, 4]),
        (9, [0, 2, 4, 6, 8, 8, 8, 8]),
        (20, [0, 3, 6, 9, 12, 15, 18, 19]),
        (64, [0, 8, 16, 24, 32, 40, 48, 56]),
        (65, [0, 9, 18, 27, 36, 45, 54, 63]),
    ],
)
def test_chunk_starts_are_those_of_ste_nvan_s_test(length, clip):
    assert sample_clips(length, 8, "chunk_start") == [clip]
