import pytest
import torch

from nl3d.data.dataset import Counts, ReIDDataset, check_count
from nl3d.data.tracklets import Tracklet
from nl3d.metrics import evaluate


def tracklet(pid, camid, frames=1):
    return Tracklet(torch.zeros(frames, 3, 4, 2, dtype=torch.uint8), pid=pid, camid=camid, name=f"{pid}-{camid}")


GALLERY = [tracklet(3, 1), tracklet(3, 2), tracklet(4, 1), tracklet(-1, 1), tracklet(0, 2)]


def test_counts_leave_junk_and_distractors_out_of_people():
    data = ReIDDataset(
        name="tiny",
        train=[tracklet(0, 1, 2), tracklet(0, 2, 3), tracklet(1, 1)],
        query=[tracklet(3, 1)],
        gallery=GALLERY,
        train_labels=("a", "b"),
        junk_pids=(-1,),
        distractor_pids=(0,),
    )
    assert data.counts() == {"train": Counts(3, 2, 6), "query": Counts(1, 1, 1), "gallery": Counts(5, 2, 5)}
    assert data.num_train_pids == 2


def test_options_are_those_of_evaluate():
    data = ReIDDataset(name="tiny", query=[tracklet(3, 1)], gallery=GALLERY, junk_pids=(-1,), distractor_pids=(0,))
    rows = torch.eye(5)
    pids, camids = zip(*((t.pid, t.camid) for t in data.gallery), strict=True)
    result = evaluate(rows[:1], rows, [3], list(pids), [1], list(camids), **data.evaluate_options())
    assert result.num_valid_queries == 1


def test_a_query_needs_its_person_under_another_camera():
    data = ReIDDataset(
        name="tiny", query=[tracklet(3, 1), tracklet(3, 3), tracklet(4, 1), tracklet(9, 1)], gallery=GALLERY
    )
    assert data.queries_without_match() == [2, 3]


def test_refuses_unknown_people_and_cameras():
    with pytest.raises(ValueError, match="gallery must have pid and camid throughout"):
        ReIDDataset(name="tiny", gallery=[tracklet(1, None)])


@pytest.mark.parametrize("pid", [-1, 1])
def test_refuses_training_pids_outside_the_numbering(pid):
    with pytest.raises(ValueError, match=f"train pids must go from 0 to 0, one per label, got {pid}"):
        ReIDDataset(name="tiny", train=[tracklet(pid, 1)], train_labels=("a",))


def test_refuses_junk_as_a_query():
    with pytest.raises(ValueError, match="query must hold people, but '-1-1' has pid -1"):
        ReIDDataset(name="tiny", query=[tracklet(-1, 1)], junk_pids=(-1,))


def test_is_frozen():
    data = ReIDDataset(name="tiny")
    with pytest.raises(AttributeError):
        data.name = "other"


def test_check_count():
    check_count("rows", 5, 5)
    with pytest.raises(
        ValueError, match=r"rows must be 12,180 in the published data set, got 1,000; give check_counts"
    ):
        check_count("rows", 1000, 12180)
