from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nl3d.live.detections import read_detections

CORNERS = [[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 5.0, 9.0], [7.0, 8.0, 9.0, 10.0]]
SIZES = [[10.0, 20.0, 20.0, 40.0], [0.0, 0.0, 5.0, 9.0], [7.0, 8.0, 2.0, 2.0]]


def supervision(xyxy, tracker_id):
    """The attributes of ``supervision.Detections`` that are read."""
    return SimpleNamespace(xyxy=np.asarray(xyxy, np.float32).reshape(-1, 4), tracker_id=tracker_id, confidence=None)


def ultralytics(xyxy, ids):
    """The attributes of Ultralytics' ``Results`` that are read: its ids are floats, or None if no track is followed."""
    boxes = SimpleNamespace(
        xyxy=torch.tensor(xyxy, dtype=torch.float32).reshape(-1, 4), id=None if ids is None else torch.tensor(ids)
    )
    return SimpleNamespace(boxes=boxes, orig_img=np.zeros((90, 90, 3), np.uint8))


@pytest.mark.parametrize(
    "given",
    [
        (supervision(CORNERS, np.array([4, 5, 6])),),
        (ultralytics(CORNERS, [4.0, 5.0, 6.0]),),
        (ultralytics(CORNERS, [4.0, 5.0, 6.0]).boxes,),
        (CORNERS, [4, 5, 6], "xyxy"),
        (np.array(SIZES), np.array([4.0, 5.0, 6.0]), "ltwh"),
        (torch.tensor(SIZES), torch.tensor([4, 5, 6]), "ltwh"),
        (SIZES, ["4", "5", "6"], "ltwh"),
    ],
    ids=["supervision", "results", "boxes", "lists", "arrays", "tensors", "text"],
)
def test_every_kind_says_the_same(given):
    found = read_detections(*given)
    assert found.ids == [4, 5, 6]
    assert found.boxes.tolist() == SIZES
    assert (found.untracked, found.bad) == (0, 0)


@pytest.mark.parametrize(
    "given",
    [
        (None,),
        ([], []),
        ([],),
        (np.empty((0, 4)), np.empty(0), "xyxy"),
        (supervision([], None),),
        (supervision([], np.array([])),),
        (ultralytics([], None),),
    ],
)
def test_frames_without_boxes(given):
    found = read_detections(*given)
    assert found.ids == []
    assert found.boxes.shape == (0, 4)


def test_boxes_without_a_track_are_counted_and_keep_their_places():
    found = read_detections(CORNERS, [-1, 2, None], "xyxy")
    assert (found.ids, found.untracked, found.bad) == ([None, 2, None], 2, 0)
    assert read_detections(ultralytics(CORNERS, None)).untracked == 3
    assert read_detections(CORNERS[:1], [2**64 - 1], "xyxy").untracked == 1  # DeepStream's mark
    assert read_detections(CORNERS[:1], [2**63], "xyxy").ids == [2**63]


def test_boxes_that_are_none_are_counted_and_keep_their_places():
    boxes = [[5, 5, 5, 9], [0, 0, float("nan"), 9], [9, 9, 3, 3], [0, 0, 1e9, 5], [1, 2, 3, 4]]
    found = read_detections(boxes, [1, 2, 3, -4, 5], "xyxy")
    assert (found.ids, found.untracked, found.bad) == ([None, None, None, None, 5], 1, 3)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ((CORNERS, [1, 2, 3]), ValueError, r"coordinates must be 'xyxy' \(two corners\) or 'ltwh'"),
        ((CORNERS, None, "xyxy"), ValueError, "ids must be given with boxes in an array"),
        ((CORNERS, [1, 2], "xyxy"), ValueError, "ids must be one per box, got 2 for 3 boxes"),
        ((CORNERS, [1, 2, 1], "xyxy"), ValueError, "ids must differ within a frame, got 1 more than once"),
        ((CORNERS, [1, 2, 1.5], "xyxy"), TypeError, "ids must be whole numbers, got 1.5"),
        ((CORNERS, ["a", "b", "c"], "xyxy"), TypeError, "ids must be whole numbers, got 'a'"),
        (([[1, 2, 3]], [1], "xyxy"), ValueError, r"boxes must be \(n, 4\), got \(1, 3\)"),
        ((supervision(CORNERS, None),), ValueError, "pass them to a tracker first"),
        ((supervision(CORNERS, np.arange(3)), [1, 2, 3]), TypeError, "ids must be left out for SimpleNamespace"),
        ((SimpleNamespace(orig_img=0, boxes=None),), ValueError, "results must have upright boxes, got none"),
    ],
)
def test_what_does_not_fit_is_refused(given, kind, message):
    with pytest.raises(kind, match=message):
        read_detections(*given)


def test_real_detections_of_supervision():
    detections = pytest.importorskip("supervision").Detections(np.array(CORNERS), tracker_id=np.array([4, 5, 6]))
    assert read_detections(detections).ids == [4, 5, 6]
    assert read_detections(detections).boxes.tolist() == SIZES
    assert read_detections(type(detections).empty()).ids == []


def test_real_results_of_ultralytics():
    results = pytest.importorskip("ultralytics.engine.results").Results
    rows = torch.tensor([[*box, track_id, 0.9, 0.0] for box, track_id in zip(CORNERS, (4, 5, 6), strict=True)])
    image = np.zeros((90, 90, 3), np.uint8)
    made = results(image, path="a.jpg", names={0: "person"}, boxes=rows)
    assert read_detections(made).ids == read_detections(made.boxes).ids == [4, 5, 6]
    assert read_detections(made).boxes.tolist() == SIZES
    detected = results(image, path="a.jpg", names={0: "person"}, boxes=rows[:, [0, 1, 2, 3, 5, 6]])
    assert read_detections(detected).untracked == 3
    assert read_detections(results(image, path="a.jpg", names={}, boxes=torch.empty(0, 6))).ids == []
