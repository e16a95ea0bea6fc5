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
        ("frame,id,left,top,width,height", "must be finite numbers"),
        ("1,2,3,4,,6", "must be finite numbers"),
        ("1,2,nan,4,5,6", "must be finite numbers"),
        ("1,2,3,4,inf,6", "must be finite numbers"),
        ("99999999999,1,3,4,5,6", "frame must be a whole number below 2147483648"),
        ("1,2,3,1e308,5,6", "must lie within 1000000 pixels"),
        ("1,2,0x3p0,4,5,6", "must be finite numbers"),
        ("1,2,1_0,4,5,6", "must be finite numbers"),
        ("1,2,\u0663,4,5,6", "must be finite numbers"),
        ("1;2;3;4;5;6", "replace the semicolons"),
        ("1,18446744073709551615,3,4,5,6", r"id must be a whole number from 0 to .*; 18446744073709551615 marks"),
        ("1,18446744073709551616,3,4,5,6", "id must be a whole number from 0 to"),
        ("1,4611686018427387905.0,3,4,5,6", "with all its digits"),
        ("1,1e+06,3,4,5,6", "with all its digits"),
        ("0,2,3,4,5,6", "frame must be a whole number from 1 on"),
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
    bad = ["2,-1,0,0,9,9", "2,1,0,0,0,0", "2,2,nan,0,9,9", "2,,0,0,9,9", "2,None,0,0,9,9", "2,3,0"]
    path = written(tmp_path, "\n".join(["1,1,0,0,9,9", *bad, "3,1,0,0,9,9"]))
    with pytest.raises(ValueError, match=r"boxes.txt, line 2: .*--skip-bad-boxes \(BoxOptions\(skip_bad=True\)\)"):
        read_boxes(path)
    boxes = read_boxes(path, BoxOptions(skip_bad=True))
    assert [(track.track_id, track.frames.tolist()) for track in boxes.tracks] == [(1, [1, 3])]
    assert boxes.left_out == {"bad rows": 6}
    assert read_boxes(written(tmp_path, "1,1,0,0,9,9\n"), BoxOptions(skip_bad=True)).left_out == {}


def test_frames_that_count_from_zero(tmp_path):
    path = written(tmp_path, "0,1,0,0,9,9\n4,1,0,0,9,9\n")
    boxes = read_boxes(path, BoxOptions(first_frame=0))
    assert (boxes.tracks[0].frames.tolist(), boxes.first_frame) == ([1, 5], 0)
    for options in (BoxOptions(), BoxOptions(skip_bad=True)):  # the other frames would be one off
        with pytest.raises(ValueError, match=r"line 1: frame must be a whole number from 1 on, .*pass --first-frame N"):
            read_boxes(path, options)


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


VISDRONE = "1,0,5,5,9,9,1,1,0,0\n1,1,5,5,9,9,0,1,0,0\n1,2,5,5,9,9,1,4,1,2\n1,3,5,5,9,9,1,2,0,1\n1,4,5,5,9,9,1,0,0,0\n"


def test_visdrone_is_detected_and_keeps_people(tmp_path):
    boxes = read_boxes(written(tmp_path, VISDRONE))
    assert ids(boxes) == [0, 3]
    assert boxes.left_out == {
        "marked as not to be considered": 1,
        "class 4 (car)": 1,
        "class 0 (ignored region)": 1,
    }
    assert ids(read_boxes(written(tmp_path, VISDRONE), BoxOptions(classes=("Car",)))) == [2]
    with pytest.raises(ValueError, match="line 1: a line must have ten columns"):
        read_boxes(written(tmp_path, "1,0,5,5,9,9,1,1,0\n"), BoxOptions("visdrone"))


@pytest.mark.parametrize(
    ("columns", "kept"), [("1,1,0,0", [1, 2]), ("0.9,4,0,0", [1, 2]), ("1,0,0,0", [1, 2]), ("1,4,0,0", None)]
)
def test_ten_columns_with_zeros_may_be_a_tracker_s(tmp_path, columns, kept):
    path = written(tmp_path, f"1,1,8,2,20,30,{columns}\n1,2,8,2,20,30,{columns}\n")
    if kept is None:
        with pytest.raises(ValueError, match="--box-format mot or --box-format visdrone"):
            read_boxes(path)
    else:
        assert ids(read_boxes(path)) == kept


KITTI = """0 0 Van 0 0 -1.79 296.74 161.75 455.23 292.37 2.00 1.82 4.43 -4.55 1.86 13.41 -2.12
0 2 Pedestrian 0 0 -2.54 100.0 20.5 150.0 170.5 1.67 0.53 0.85 5.0 1.5 9.0 -2.0
1 2 Pedestrian 0 0 -2.54 101.0 20.5 150.0 170.5 1.67 0.53 0.85 5.0 1.5 9.0 -2.0
1 -1 DontCare -1 -1 -10 219.31 188.49 245.50 218.56 -1000 -1000 -1000 -10 -1 -1 -1
"""


def test_kitti_has_corners_and_frames_from_zero(tmp_path):
    boxes = read_boxes(written(tmp_path, KITTI))
    (track,) = boxes.tracks
    assert (track.track_id, track.frames.tolist()) == (2, [1, 2])
    assert track.boxes.tolist() == [[100, 20.5, 50, 150], [101, 20.5, 49, 150]]
    assert boxes.left_out == {"class Van": 1, "regions to ignore": 1}
    assert ids(read_boxes(written(tmp_path, KITTI), BoxOptions(classes=("all",)))) == [0, 2]
    with pytest.raises(ValueError, match="line 1: a line must have 17 columns"):
        read_boxes(written(tmp_path, "0 0 Van\n"), BoxOptions("kitti"))


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
  <track id="3" label="person" source="manual">
    <box frame="0" outside="0" occluded="0" keyframe="1" xtl="5.5" ytl="6" xbr="15.5" ybr="26"></box>
    <box frame="1" outside="1" occluded="0" keyframe="1" xtl="5.5" ytl="6" xbr="15.5" ybr="26"></box>
    <box frame="2" outside="0" occluded="0" keyframe="1" xtl="7" ytl="6" xbr="15" ybr="26"></box>
  </track>
  <track id="4" label="bag" source="manual">
    <box frame="2" outside="0" occluded="0" keyframe="1" xtl="1" ytl="2" xbr="3" ybr="5"></box>
    <polygon frame="3" outside="0" points="1,2;3,4;5,6"></polygon>
  </track>
</annotations>
"""


def test_cvat_has_tracks_of_corners_and_frames_from_zero(tmp_path):
    boxes = read_boxes(written(tmp_path, CVAT))
    assert [(t.track_id, t.frames.tolist(), t.boxes.tolist()) for t in boxes.tracks] == [
        (3, [1, 3], [[5.5, 6, 10, 20], [7, 6, 8, 20]]),
        (4, [3], [[1, 2, 2, 3]]),
    ]
    assert boxes.classes == {"person": 2, "bag": 1}
    assert boxes.left_out == {"shapes that are no boxes (polygon)": 1}
    assert boxes.first_frame == 0
    assert ids(read_boxes(written(tmp_path, CVAT), BoxOptions(classes=("person",)))) == [3]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('xbr="15.5"', 'xbr="5.5"', r"boxes.txt, line 4: width and height must be above 0, .*--skip-bad-boxes"),
        ('xtl="5.5"', 'xtl="left"', r"boxes.txt, line 4: .*must be finite numbers"),
        ('xtl="5.5"', 'rotation="30" xtl="5.5"', r"line 4: a box must be upright"),
        ('frame="0"', "", r"line 4: a box must have the attribute 'frame'"),
        ("<annotations>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations>", "must have no document type"),
        ("</annotations>", "", r"line 13: boxes of CVAT must be XML: no element found"),
        ("utf-8", "utf3", ""),  # the declared encoding is not used
        ("person", "p\xe9rson", ""),
        ('<track id="3"', '<image/><track id="3"', "must have tracks, got images.*'CVAT for video 1.1'"),
        ('id="4" label="bag"', 'id="4" label="bag" task_id="2"', "must be of one task, got several"),
    ],
)
def test_broken_files_of_cvat(tmp_path, old, new, message):
    if not message:
        assert ids(read_boxes(written(tmp_path, CVAT.replace(old, new)))) == [3, 4]
        return
    with pytest.raises(ValueError, match=message):
        read_boxes(written(tmp_path, CVAT.replace(old, new)))


def write_labels(folder, files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_ultralytics_writes_a_file_per_frame_with_shares(tmp_path):
    files = {"v_1.txt": "0 0.5 0.5 0.25 0.5 7\n2 0.1 0.1 0.1 0.1 9\n", "v_12.txt": "0 0.5 0.5 0.25 0.5 0.93 7\n"}
    boxes = read_boxes(write_labels(tmp_path / "labels", files))
    assert [(t.track_id, t.frames.tolist()) for t in boxes.tracks] == [(7, [1, 12]), (9, [1])]
    assert (boxes.classes, boxes.shares) == ({"0": 2, "2": 1}, True)
    pixels, clipped = boxes.cut(torch.arange(48 * 64).view(1, 48, 64), boxes.tracks[0].boxes[0])
    assert torch.equal(pixels, torch.arange(48 * 64).view(1, 48, 64)[:, 12:36, 24:40])
    assert not clipped


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"v_1.txt": "0 0.5 0.5 0.2 0.2\n"}, r"v_1.txt, line 1: a box must have an id"),
        ({"v_1.txt": "0 0.5 0.5 0.2 0.2 0.87\n"}, r"v_1.txt, line 1: a box must have an id"),
        ({"v_1.txt": "0 32 24 10 10 3\n"}, "must be shares of the frame"),
        ({"v_1.txt": "0 0.5 0.5 0.2 0.2 1e+06\n"}, "id must be a whole number, written with all its digits"),
        ({"v_1.txt": "", "w_2.txt": ""}, "differ in their number alone"),
        ({}, "at least one box, got none"),
    ],
)
def test_broken_folders_of_ultralytics(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        read_boxes(write_labels(tmp_path / "labels", files))


def test_text_in_other_encodings_is_refused(tmp_path):
    for encoding in ("utf-16", "utf-16-le"):
        (tmp_path / "boxes.txt").write_text("1,1,0,0,9,9\n", encoding=encoding)
        with pytest.raises(ValueError, match=r"boxes.txt.* must be text in UTF-8"):
            read_boxes(tmp_path / "boxes.txt")
