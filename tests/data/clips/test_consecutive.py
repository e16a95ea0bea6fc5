import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nl3d.data.clips.collector import ClipCollector
from nl3d.data.clips.sampling import consecutive_clips

counts = st.integers(1, 40)


@given(length=counts, num_frames=st.integers(1, 9), frame_step=st.integers(1, 5))
def test_clips_are_consecutive_and_drop_nothing(length, num_frames, frame_step):
    clips = consecutive_clips(length, num_frames, frame_step)
    assert all(len(clip) == num_frames for clip in clips)
    flat = [place for clip in clips for place in clip]
    assert list(dict.fromkeys(flat)) == list(range(0, length, frame_step))  # each frame of the step, in order
    assert all(clip[0] == index * num_frames * frame_step for index, clip in enumerate(clips))
    for clip in clips[:-1]:
        assert len(set(clip)) == num_frames  # only the last may loop


@given(length=counts, num_frames=st.integers(1, 9), frame_step=st.integers(1, 5))
def test_collecting_one_by_one_cuts_the_same_clips(length, num_frames, frame_step):
    collector = ClipCollector(num_frames, frame_step)
    clips = []
    for place in range(length):
        for tracklet in (4, 9):  # two at a time do not mix
            clip = None
            if collector.takes(tracklet):
                clip = collector.add(tracklet, torch.tensor([100 * tracklet + place]))
            if clip is None and place == length - 1:
                clip = collector.close(tracklet)
            if clip is not None:
                clips.append((tracklet, (clip.flatten() - 100 * tracklet).tolist()))
    for tracklet in (4, 9):
        cut = [places for owner, places in clips if owner == tracklet]
        assert cut == consecutive_clips(length, num_frames, frame_step)
        assert collector.close(tracklet) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 1), "length must be at least 1, got 0"),
        ((4, 0, 1), "num_frames must be at least 1, got 0"),
        ((4, 4, 0), "frame_step must be at least 1, got 0"),
    ],
)
def test_refuses_clips_of_nothing(arguments, message):
    with pytest.raises(ValueError, match=message):
        consecutive_clips(*arguments)
