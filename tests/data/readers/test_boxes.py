import numpy as np
import pytest

from nl3d.data.readers.boxes import clip_box, read_mot


def written(tmp_path, text):
    path = tmp_path / "boxes.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize("separator", [",", ", ", " ", "\t"])
def test_reads_commas_and_spaces_and_floats(tmp_path, separator):
    rows = ["2 7.0 1.5 -2 3 4.25 1", "1 7 1 2 3 4 1", "9 2 0 0 5 6 0.3"]
    tracks = read_mot(written(tmp_path, "\n".join(row.replace(" ", separator) for row in rows)))
    assert [track.track_id for track in tracks] == [2, 7]
    assert tracks[1].frames.tolist() == [1, 2]
    assert tracks[1].boxes.tolist() == [[1, 2, 3, 4], [1.5, -2, 3, 4.25]]


def test_passes_over_empty_lines_comments_and_a_byte_order_mark(tmp_path):
    tracks = read_mot(written(tmp_path, "\ufeff# made by hand\n\n1,4,0,0,5,5\n"))
    assert [(track.track_id, len(track.frames)) for track in tracks] == [(4, 1)]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("1,2,3,4,5", "at least six columns"),
        ("frame,id,left,top,width,height", "must be numbers"),
        ("1,2,3,4,,6", "must be numbers"),
        ("1,2,nan,4,5,6", "must be finite"),
        ("1,2,3,4,inf,6", "must be finite"),
        ("0,2,3,4,5,6", "frame must be a whole number from 1"),
        ("1.5,2,3,4,5,6", "frame must be a whole number from 1"),
        ("1,-1,3,4,5,6", "id must be a whole number from 0"),
        ("1,2.5,3,4,5,6", "id must be a whole number from 0"),
        ("1,2,3,4,0,6", "width and height must be above 0"),
        ("1,2,3,4,5,-6", "width and height must be above 0"),
    ],
)
def test_refuses_a_line_by_its_number(tmp_path, line, rule):
    path = written(tmp_path, f"1,1,0,0,5,5\n\n{line}\n")
    with pytest.raises(ValueError, match=rf"boxes.txt, line 3: .*{rule}.*got '{line}'"):
        read_mot(path)


def test_refuses_two_boxes_of_a_track_in_a_frame(tmp_path):
    path = written(tmp_path, "3,8,0,0,5,5\n1,1,0,0,5,5\n3,8,1,1,5,5\n")
    with pytest.raises(ValueError, match=r"line 3: .*track 8 has another in frame 3 on line 1"):
        read_mot(path)


def test_refuses_what_is_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'.*none.txt' does not exist"):
        read_mot(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="at least one box, got none"):
        read_mot(written(tmp_path, "\n\n"))
    (tmp_path / "boxes.txt").write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(ValueError, match="must be text"):
        read_mot(tmp_path / "boxes.txt")


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((2, 3, 10, 20), ((3, 23, 2, 12), False)),
        ((0, 0, 100, 50), ((0, 50, 0, 100), False)),
        ((-0.4, 0, 10, 10), ((0, 10, 0, 10), False)),  # less than half a pixel is no pixel
        ((-5, -6, 20, 20), ((0, 14, 0, 15), True)),
        ((95, 45, 20, 20), ((45, 50, 95, 100), True)),
        ((7.2, 8.2, 0.1, 0.1), ((8, 9, 7, 8), False)),  # at least one pixel
        ((100, 0, 5, 5), (None, True)),
        ((-9, 0, 9, 5), (None, True)),
        ((0, 60, 5, 5), (None, True)),
    ],
)
def test_clips_a_box_to_the_frame(box, expected):
    assert clip_box(np.array(box, dtype=float), height=50, width=100) == expected
