import re

import numpy as np
import pytest
import torch

from nl3d.data.readers.boxes import BoxOptions, cut_box, read_boxes


def written(tmp_path, text):
    path = tmp_path / "boxes.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", [",", ", ", " ", "\t"])
def test_reads_commas_and_spaces_and_floats(tmp_path, separator):
    rows = ["2 7.0 1.5 -2 3 4.25 1", "1 7 1 2 3 4 1", "9 2 0 0 5 6 0.3"]
    tracks = read_boxes(written(tmp_path, "\n".join(row.replace(" ", separator) for row in rows))).tracks
    assert [track.track_id for track in tracks] == [2, 7]
    assert tracks[1].frames.tolist() == [1, 2]
    assert tracks[1].boxes.tolist() == [[1, 2, 3, 4], [1.5, -2, 3, 4.25]]


def test_passes_over_empty_lines_comments_and_a_byte_order_mark(tmp_path):
    tracks = read_boxes(written(tmp_path, "\ufeff# made by hand\n\n1,4,0,0,5,5\n")).tracks
    assert [(track.track_id, len(track.frames)) for track in tracks] == [(4, 1)]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("1,2,3,4,5", "at least six columns"),
        ("frame,id,left,top,width,height", "must be numbers"),
        ("1,2,3,4,,6", "must be numbers"),
        ("1,2,nan,4,5,6", "must be finite"),
        ("1,2,3,4,inf,6", "must be finite"),
        ("1,2,3,1e308,5,6", "must lie within 1000000 pixels"),
        ("1,2,0x3p0,4,5,6", "must be numbers"),
        ("1,2,1_0,4,5,6", "must be numbers"),
        ("1,2,\u0663,4,5,6", "must be numbers"),
        ("1;2;3;4;5;6", "replace the semicolons"),
        ("1,18446744073709551615,3,4,5,6", r"id must be a whole number from 0 to .*; 18446744073709551615 marks"),
        ("1,18446744073709551616,3,4,5,6", "id must be a whole number from 0 to"),
        ("1,4611686018427387905.0,3,4,5,6", "with all its digits"),
        ("1,1e+06,3,4,5,6", "with all its digits"),
        ("0,2,3,4,5,6", "frame must be a whole number from 1 on; .*--first-frame 0"),
        ("1.5,2,3,4,5,6", "frame must be a whole number"),
        ("1,-1,3,4,5,6", "id must be a whole number from 0"),
        ("1,2.5,3,4,5,6", "id must be a whole number"),
        ("1,2,3,4,0,6", "width and height must be above 0"),
        ("1,2,3,4,5,-6", "width and height must be above 0"),
    ],
)
def test_refuses_a_line_by_its_number(tmp_path, line, rule):
    path = written(tmp_path, f"1,1,0,0,5,5\n\n{line}\n")
    with pytest.raises(ValueError, match=rf"boxes.txt, line 3: .*{rule}.*got {re.escape(repr(line))}"):
        read_boxes(path)


def test_refuses_two_boxes_of_a_track_in_a_frame(tmp_path):
    path = written(tmp_path, "3,8,0,0,5,5\n1,1,0,0,5,5\n3,8,1,1,5,5\n")
    with pytest.raises(ValueError, match=r"line 3: .*track 8 has another in frame 3 on line 1"):
        read_boxes(path)


def test_refuses_what_is_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'.*none.txt' does not exist"):
        read_boxes(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="at least one box, got none"):
        read_boxes(written(tmp_path, "\n\n"))
    (tmp_path / "boxes.txt").write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(ValueError, match="must be text in UTF-8"):
        read_boxes(tmp_path / "boxes.txt")


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((2, 3, 10, 20), ((3, 23, 2, 12), False)),
        ((0, 0, 100, 50), ((0, 50, 0, 100), False)),
        ((-0.4, 0, 10, 10), ((0, 10, 0, 10), False)),  # less than half a pixel is no pixel
        ((-5, -6, 20, 20), ((0, 14, 0, 15), True)),
        ((95, 45, 20, 20), ((45, 50, 95, 100), True)),
        ((7.2, 8.2, 0.1, 0.1), ((8, 9, 7, 8), False)),  # at least one pixel
        ((100, 0, 5, 5), None),
        ((-9, 0, 9, 5), None),
        ((0, 60, 5, 5), None),
    ],
)
def test_cuts_a_box_out_of_the_frame(box, expected):
    rows, columns = torch.meshgrid(torch.arange(50), torch.arange(100), indexing="ij")
    cut = cut_box(torch.stack([rows, columns, rows]), np.array(box, dtype=float))
    if expected is None:
        assert cut is None
        return
    (top, bottom, left, right), clipped = expected
    assert cut[1] is clipped
    assert torch.equal(cut[0], torch.stack([rows, columns, rows])[:, top:bottom, left:right])


def ids(boxes):
    return [track.track_id for track in boxes.tracks]


def test_ids_of_64_bits_are_exact(tmp_path):
    numbers = [2**62 + 1, 2**62 + 2, 2**64 - 2]
    boxes = read_boxes(written(tmp_path, "".join(f"1,{number},0,0,9,9\n" for number in numbers)))
    assert ids(boxes) == numbers
    assert ids(read_boxes(written(tmp_path, "1.0e+00,1.000000000000000000e+01,0,0,9,9\n"))) == [10]


def test_bad_rows_are_left_out_and_counted_on_request(tmp_path):
    path = written(tmp_path, "1,1,0,0,9,9\n2,-1,0,0,9,9\n2,1,0,0,0,0\n2,2,nan,0,9,9\n3,1,0,0,9,9\n")
    with pytest.raises(ValueError, match=r"boxes.txt, line 2: .*--skip-bad-boxes \(BoxOptions\(skip_bad=True\)\)"):
        read_boxes(path)
    boxes = read_boxes(path, BoxOptions(skip_bad=True))
    assert [(track.track_id, track.frames.tolist()) for track in boxes.tracks] == [(1, [1, 3])]
    assert boxes.left_out == {"bad rows": 3}
    assert read_boxes(written(tmp_path, "1,1,0,0,9,9\n"), BoxOptions(skip_bad=True)).left_out == {}


def test_frames_that_count_from_zero(tmp_path):
    path = written(tmp_path, "0,1,0,0,9,9\n4,1,0,0,9,9\n")
    boxes = read_boxes(path, BoxOptions(first_frame=0))
    assert (boxes.tracks[0].frames.tolist(), boxes.first_frame) == ([1, 5], 0)
    with pytest.raises(ValueError, match="line 1: frame must be a whole number from 3 on"):
        read_boxes(path, BoxOptions(first_frame=3))


GROUND_TRUTH = "1,1,8,2,20,30,1,1,1.0\n1,2,16,2,20,30,0,7,1.0\n1,3,24,2,20,30,0,3,0.5\n1,4,24,2,20,30,0,1,0.5\n"


@pytest.mark.parametrize("separator", [",", " "])
def test_ground_truth_keeps_pedestrians_that_count(tmp_path, separator):
    path = written(tmp_path, GROUND_TRUTH.replace(",", separator))
    boxes = read_boxes(path)
    assert ids(boxes) == [1]
    assert boxes.left_out == {
        "class 7 (static person)": 1,
        "class 3 (car)": 1,
        "marked as not to be considered": 1,
    }
    assert ids(read_boxes(path, BoxOptions(classes=("car", "7")))) == [2, 3]
    assert ids(read_boxes(path, BoxOptions(classes=("all",)))) == [1, 2, 3, 4]
    assert ids(read_boxes(path, BoxOptions(format="mot"))) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"has 1 \(pedestrian\), 3 \(car\), 7 \(static person\); got bus"):
        read_boxes(path, BoxOptions(classes=("car", "bus")))


@pytest.mark.parametrize(
    ("columns", "kept", "classes"),
    [
        (("0.9,0,-1", "0.9,1,-1"), [1, 2], {"0": 1, "1": 1}),  # COCO's person and bicycle
        (("1,0,0.87", "1,0,0.87"), [1, 2], {}),
        (("1,person,1.0", "1,car,1.0"), [1, 2], {"person": 1, "car": 1}),
        (("1,0.0,-1,-1", "1,2.0,-1,-1"), [1, 2], {"0": 1, "2": 1}),
        (("0,-1,-1,-1", "0,-1,-1,-1"), [1, 2], {}),
        (("0.3,1.5,2.5,3.5", "0.3,1.5,2.5,7"), [1, 2], {}),  # places in the world
        (("1,1,1", "1,1,0.5"), [1, 2], {}),  # the same in either reading
    ],
)
def test_a_tracker_s_classes_are_all_kept_and_counted(tmp_path, columns, kept, classes):
    path = written(tmp_path, f"1,1,8,2,20,30,{columns[0]}\n1,2,8,2,20,30,{columns[1]}\n")
    boxes = read_boxes(path)
    assert (ids(boxes), boxes.classes, boxes.left_out) == (kept, classes, {})


@pytest.mark.parametrize("columns", [("1,1,0.9", "1,3,0.8"), ("1,-1,-1,-1", "0,-1,-1,-1")])
def test_what_can_be_read_in_two_ways_is_asked_for(tmp_path, columns):
    path = written(tmp_path, f"1,1,8,2,20,30,{columns[0]}\n1,2,8,2,20,30,{columns[1]}\n")
    with pytest.raises(ValueError, match=r"boxes.txt' can be read as .*--box-format mot or --box-format mot-gt"):
        read_boxes(path)
    assert ids(read_boxes(path, BoxOptions(format="mot"))) == [1, 2]
    assert ids(read_boxes(path, BoxOptions(format="mot-gt"))) == [1]


def test_shares_of_the_frame_are_no_pixels(tmp_path):
    path = written(tmp_path, "1,1,0.1,0.2,0.3,0.4\n2,1,0.1,0.2,0.3,0.4\n")
    with pytest.raises(ValueError, match="must give boxes in pixels, got none above 2, which are shares"):
        read_boxes(path)
    assert ids(read_boxes(path, BoxOptions(format="mot"))) == [1]


def test_options(tmp_path):
    options = BoxOptions("mot", 0, ["1"], True)
    assert BoxOptions.from_json(options.to_json()) == options
    with pytest.raises(ValueError, match=r"format must be one of mot, .*, got 'mots'"):
        BoxOptions("mots")
    with pytest.raises(ValueError, match="first_frame must be at least 0, got -1"):
        BoxOptions(first_frame=-1)
