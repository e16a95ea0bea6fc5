import pytest
import torch
from torch.utils.data import DataLoader

from nl3d.data.clips.dataset import ClipDataset
from nl3d.data.clips.samplers import Draw, PKSampler
from nl3d.data.clips.transforms import ClipTransform
from nl3d.data.tracklets import Tracklet
from tests.data.pictures import write_jpeg


def numbered(length, pid, camid=1):
    """Frame n is grey n all over."""
    values = torch.arange(length, dtype=torch.uint8).view(-1, 1, 1, 1)
    return Tracklet(values.expand(-1, 3, 8, 4), pid=pid, camid=camid, name=f"t{pid}")


def raw(frames, generator=None):
    return torch.stack(list(frames), 1)


def frames_of(sample):
    return sample.clip[0, :, 0, 0].tolist()


def test_one_item_a_tracklet():
    clips = ClipDataset([numbered(100, 5), numbered(3, 6, camid=2)], transform=raw)
    assert len(clips) == 2
    assert frames_of(clips[0]) == list(range(18, 82, 8))
    assert frames_of(clips[1]) == [0] * 8
    assert clips[1][1:] == (6, 2, 1, 0)


def test_dense_items_are_all_clips():
    clips = ClipDataset([numbered(9, 1), numbered(2, 2), numbered(8, 3)], num_frames=4, strategy="dense", transform=raw)
    assert [clips[index].tracklet for index in range(len(clips))] == [0, 0, 0, 1, 2, 2]
    assert [frames_of(clips[index]) for index in (1, 2, 3, 5)] == [[4, 5, 6, 7], [8] * 4, [0, 1, 0, 1], [4, 5, 6, 7]]
    assert frames_of(clips[-1]) == [4, 5, 6, 7]
    with pytest.raises(IndexError, match="index must be below 6, got 6"):
        clips[6]


def test_a_source_that_can_is_asked_for_a_clip_at_once():
    class Source:
        asked = []  # noqa: RUF012

        def __len__(self):
            return 3

        def read_all(self, indices):
            self.asked.append(list(indices))
            return [torch.full((3, 8, 4), index, dtype=torch.uint8) for index in indices]

    clips = ClipDataset([Tracklet(Source(), pid=1, camid=1)], num_frames=4, strategy="consecutive", transform=raw)
    assert frames_of(clips[0]) == [0, 1, 2, 0]
    assert Source.asked == [[0, 1, 2]]  # once each


def test_dense_with_a_step():
    clips = ClipDataset([numbered(17, 1)], num_frames=4, strategy="dense", frame_step=2, transform=raw)
    assert [frames_of(clips[index]) for index in range(len(clips))] == [[0, 2, 4, 6], [8, 10, 12, 14], [16] * 4]


def test_a_draw_decides_what_is_random():
    tracklets = [Tracklet(torch.randint(256, (90, 3, 20, 10), dtype=torch.uint8), pid=1, camid=1)]
    clips = ClipDataset(tracklets, training=True, transform=ClipTransform((16, 8), training=True))
    first = clips[Draw(0, 11)].clip
    state = torch.get_rng_state()
    assert torch.equal(clips[Draw(0, 11)].clip, first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(clips[Draw(0, 12)].clip, first)
    other = ClipDataset(tracklets, training=True, transform=clips.transform, seed=1)
    assert not torch.equal(other[Draw(0, 11)].clip, first)
    assert not torch.equal(clips[0].clip, clips[0].clip)  # a plain index draws from torch's own generator


def test_workers_make_the_same_batches():
    frames = torch.randint(256, (90, 3, 20, 10), dtype=torch.uint8)
    tracklets = [Tracklet(frames[pid:], pid=pid, camid=1) for pid in (0, 0, 1, 2)]
    clips = ClipDataset(tracklets, training=True, transform=ClipTransform((8, 4), training=True))
    batches = {}
    for workers in (0, 2):
        sampler = PKSampler([t.pid for t in tracklets], 3, 3)
        (batch,) = DataLoader(clips, batch_sampler=sampler, num_workers=workers)
        batches[workers] = batch
    assert torch.equal(batches[0].clip, batches[2].clip)
    assert batches[0].clip.shape == (9, 3, 8, 8, 4)
    assert batches[0].pid.dtype == torch.int64
    assert len({clip.numpy().tobytes() for clip in batches[0].clip}) == 9  # a tracklet drawn twice gives two clips


def test_boxes_of_different_sizes():
    frames = [torch.full((3, height, 4), 50, dtype=torch.uint8) for height in (6, 9, 8)]
    clips = ClipDataset([Tracklet(frames, pid=1, camid=1)], num_frames=3, strategy="consecutive")
    clips.transform = ClipTransform((9, 4), normalise=False)
    assert clips[0].clip.shape == (3, 3, 9, 4)
    assert (clips[0].clip == 50).all()


@pytest.fixture
def folder(tmp_path):
    for number in range(12):
        write_jpeg(tmp_path / f"{number:02d}.jpg", colour=(20 * number,) * 3)
    return tmp_path


def from_folder(folder, broken=(), **options):
    for number in broken:
        (folder / f"{number:02d}.jpg").write_bytes(b"no picture")
    tracklet = Tracklet([folder / f"{number:02d}.jpg" for number in range(12)], pid=3, camid=4, name="walk")
    return ClipDataset([tracklet], num_frames=4, strategy="dense", transform=raw, **options)


def numbers(sample):
    return [round(value / 20) for value in frames_of(sample)]


def test_an_unreadable_image_is_named(folder):
    clips = from_folder(folder, broken=[5])
    assert numbers(clips[0]) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"05.jpg' cannot be read"):
        clips[1]
    with pytest.raises(ValueError, match=r"05.jpg' cannot be read"):
        list(DataLoader(clips, num_workers=1))  # from a worker, in the middle of an epoch


def test_a_missing_image_is_named(folder):
    (folder / "06.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"06.jpg' does not exist"):
        from_folder(folder)[1]


def test_unreadable_images_are_replaced_and_counted(folder):
    (folder / "06.jpg").unlink()
    clips = from_folder(folder, broken=[5], skip_unreadable=True)
    assert numbers(clips[1]) == [4, 4, 7, 7]
    counts = [sample.unreadable.item() for sample in DataLoader(clips, batch_size=1, num_workers=1)]
    assert counts == [0, 2, 0]


def test_a_clip_with_nothing_to_read_borrows_of_its_tracklet(folder):
    clips = from_folder(folder, broken=[4, 5, 6, 7], skip_unreadable=True)
    assert numbers(clips[1]) == [3] * 4
    assert clips[1].unreadable == 4


def test_a_tracklet_with_nothing_to_read_is_named(folder):
    clips = from_folder(folder, broken=range(12), skip_unreadable=True)
    with pytest.raises(
        ValueError, match=r"tracklet 'walk' must have a readable frame, got none: image .*cannot be read"
    ):
        clips[1]


def test_unknown_people_are_minus_one():
    clips = ClipDataset([Tracklet(torch.zeros(2, 3, 8, 4, dtype=torch.uint8))])
    assert clips[0][1:3] == (-1, -1)
    assert clips[0].clip.shape == (3, 8, 256, 128)


def test_refusals():
    with pytest.raises(ValueError, match="tracklets must be at least one, got none"):
        ClipDataset([])
    with pytest.raises(ValueError, match="strategy must be one of"):
        ClipDataset([numbered(2, 1)], strategy="all")
