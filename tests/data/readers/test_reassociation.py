import pytest
import torch

from nl3d.data.readers.reassociation import read_reassociation
from tests.data.pictures import write_jpeg

COLOURS = {1: (200, 30, 30), 2: (30, 200, 30), 3: (30, 30, 200), 4: (200, 200, 30)}
SIZE = (40, 60)


def write_sequence(root, spans, rows=(), frames=30, columns=",1,1,1.0"):
    """A film of one grey, and boxes; ``spans`` are first and last frame of each track."""
    lines = [
        f"{frame},{track},{5 * track},4,6,12{columns}" for track, (a, b) in spans.items() for frame in range(a, b + 1)
    ]
    (root / "gt").mkdir(parents=True)
    (root / "gt" / "gt.txt").write_text("\n".join([*lines, *rows]) + "\n")
    for frame in range(1, frames + 1):
        write_jpeg(root / "img1" / f"{frame:06d}.jpg", colour=(frame * 8,) * 3, size=SIZE)
    return root


def spans(tracklets):
    """Track, camera, first and last frame of tracklets."""
    return [(t.pid, t.camid, int(t.frames[0].stem), int(t.frames[-1].stem)) for t in tracklets]


def test_found_again_some_frames_later(tmp_path):
    root = write_sequence(tmp_path / "MOT-01", {1: (1, 30), 2: (5, 16), 3: (9, 15)})
    data = read_reassociation(root, crops=tmp_path / "crops", later=8, num_frames=4)
    assert spans(data.query) == [(1, 1, 1, 4), (2, 1, 5, 8)]
    # track 3 has no frame that late: it is a wrong answer to the others
    assert spans(data.gallery) == [(1, 2, 12, 15), (2, 2, 16, 16), (3, 2, 9, 12)]
    assert (data.name, data.protocol) == ("MOT-01", "found again 8 frames later")
    assert data.queries_without_match() == []
    image = data.gallery[0].read(2)
    assert image.shape == (3, 12, 6)
    assert (image.int() - 14 * 8).abs().max() <= 2  # of frame 14


def test_found_again_on_re_entry(tmp_path):
    root = write_sequence(tmp_path / "seq", {1: (1, 5), 2: (2, 9), 3: (12, 20), 4: (22, 30)})
    (tmp_path / "people.csv").write_text("track_id,person\n3,ann\n1,ann\n2,bob\n4,ann\n")
    data = read_reassociation(root, crops=tmp_path / "crops", people=tmp_path / "people.csv", num_frames=5)
    assert spans(data.gallery) == [(1, 1, 1, 5), (1, 2, 12, 16), (1, 3, 22, 26), (2, 1, 2, 6)]
    assert spans(data.query) == spans(data.gallery)[:3]
    assert data.queries_without_match() == []
    assert data.protocol == "found again on re-entry"


def test_only_pedestrians_that_count(tmp_path):
    rows = [f"{frame},9,40,4,6,12,1,3,1.0" for frame in range(1, 20)]  # a car
    rows += [f"{frame},8,40,4,6,12,0,1,1.0" for frame in range(1, 20)]  # to be ignored
    root = write_sequence(tmp_path / "seq", {1: (1, 20)}, rows)
    data = read_reassociation(root, crops=tmp_path / "crops", later=5, num_frames=4)
    assert [t.pid for t in data.gallery] == [1]
    root = write_sequence(tmp_path / "cars", {}, rows)
    with pytest.raises(ValueError, match="must hold a box of a person that counts, got none: 19 of class 3"):
        read_reassociation(root, crops=tmp_path / "crops2", later=5)


def test_a_tracker_s_ten_columns_all_count(tmp_path):
    root = write_sequence(tmp_path / "seq", {1: (1, 20)}, columns=",0,-1,-1,-1")
    data = read_reassociation(root / "img1", root / "gt" / "gt.txt", crops=tmp_path / "crops", later=5, num_frames=4)
    assert len(data.query) == 1
    assert data.name == "img1"


def test_boxes_outside_the_frame_are_left_out(tmp_path):
    rows = [f"{frame},7,{-20 if frame < 3 else 0},4,6,12,1,1,1" for frame in range(1, 20)]
    root = write_sequence(tmp_path / "seq", {}, rows)
    for _ in range(2):  # also when nothing is cut anew
        data = read_reassociation(root, crops=tmp_path / "crops", later=5, num_frames=4)
        assert spans(data.query) == [(7, 1, 3, 4)]


def test_crops_are_cut_once(tmp_path):
    root = write_sequence(tmp_path / "seq", {1: (1, 30), 2: (3, 20)})
    crops = tmp_path / "crops"
    first = read_reassociation(root, crops=crops, later=8, num_frames=4)
    before = {path: path.stat().st_mtime_ns for path in crops.rglob("*.jpg")}
    (crops / "000001" / "00000002.jpg").unlink()  # as if it had been interrupted
    again = read_reassociation(root, crops=crops, later=8, num_frames=4)
    after = {path: path.stat().st_mtime_ns for path in crops.rglob("*.jpg")}
    assert set(before) == set(after)
    assert sum(before[path] != after[path] for path in before) == 1
    assert spans(first.gallery) == spans(again.gallery)
    assert torch.equal(first.query[0].read(1), again.query[0].read(1))


def test_crops_of_another_video_are_refused(tmp_path):
    root = write_sequence(tmp_path / "seq", {1: (1, 30)})
    read_reassociation(root, crops=tmp_path / "crops", later=8, num_frames=4)
    other = write_sequence(tmp_path / "other", {1: (2, 30)})
    with pytest.raises(ValueError, match=r"crops .* must be of 'img1' and these tracks; choose another folder"):
        read_reassociation(other, crops=tmp_path / "crops", later=8)
    with pytest.raises(ValueError, match="must be an empty folder or one of crops"):
        read_reassociation(root, crops=root, later=8)


def test_a_video_file(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        for frame in range(30):
            image = torch.full((48, 64, 3), frame * 8, dtype=torch.uint8).numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "tracks.txt").write_text("".join(f"{frame},1,5,4,16,32,1,-1,-1,-1\n" for frame in range(1, 31)))
    data = read_reassociation(
        tmp_path / "film.mp4", tmp_path / "tracks.txt", crops=tmp_path / "c", later=10, num_frames=4
    )
    assert data.name == "film"
    assert spans(data.gallery) == [(1, 2, 14, 17)]
    assert (data.gallery[0].read(0).float().mean() - 13 * 8).abs() < 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,ann\n", r"must name every track, but 1 lack, such as 2"),
        ("1,ann\n2,bob\n1,ann\n", r"line 3: a track must have one line, but track 1 has another"),
        ("1,ann\n2\n", r"line 2: a line must be a track id and a name, got '2'"),
        ("1,ann\n2,bob\n", r"must have a track that can be found again, got none; check the people file"),
    ],
)
def test_broken_people_files(tmp_path, text, message):
    root = write_sequence(tmp_path / "seq", {1: (1, 5), 2: (2, 9)})
    (tmp_path / "people.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_reassociation(root, crops=tmp_path / "crops", people=tmp_path / "people.csv")


def test_refusals(tmp_path):
    root = write_sequence(tmp_path / "seq", {1: (1, 9)})
    with pytest.raises(ValueError, match="one of later and people must be given, got neither"):
        read_reassociation(root, crops=tmp_path / "crops")
    with pytest.raises(ValueError, match="one of later and people must be given, got both"):
        read_reassociation(root, crops=tmp_path / "crops", later=2, people="people.csv")
    with pytest.raises(ValueError, match="num_frames and later must be at least 1, got 64 and 0"):
        read_reassociation(root, crops=tmp_path / "crops", later=0)
    with pytest.raises(ValueError, match="got none; take a smaller later"):
        read_reassociation(root, crops=tmp_path / "crops", later=20)
    with pytest.raises(FileNotFoundError, match=r"people file .* does not exist"):
        read_reassociation(root, crops=tmp_path / "crops", people=tmp_path / "no.csv")
    with pytest.raises(FileNotFoundError, match=r"gt.txt' does not exist"):
        read_reassociation(tmp_path / "none", crops=tmp_path / "crops", later=2)
