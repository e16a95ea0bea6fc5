import pickle
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from nl3d.data.clips.samplers import Draw, PKSampler


def epoch(sampler, number=0):
    sampler.set_epoch(number)
    return [[int(index) for index in batch] for batch in sampler]


tracklets_per_person = st.lists(st.integers(1, 6), min_size=4, max_size=15)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    tracklets_per_person, st.integers(1, 2), st.integers(1, 5), st.integers(1, 2), st.integers(0, 3), st.integers(0, 3)
)
def test_an_epoch_meets_everybody(sizes, P, K, world_size, seed, number):
    pids = [100 + person for person, size in enumerate(sizes) for _ in range(size)]
    ranks = [
        epoch(PKSampler(pids, P, K, seed=seed, rank=rank, world_size=world_size), number) for rank in range(world_size)
    ]
    one = epoch(PKSampler(pids, P * world_size, K, seed=seed), number)
    # the ranks' batches, end to end, are those of one process
    assert [sum(step, []) for step in zip(*ranks, strict=True)] == one  # noqa: RUF017
    met = Counter()
    for batch in one:
        assert len(batch) == P * world_size * K
        people = [pids[index] for index in batch[::K]]
        assert len(set(people)) == P * world_size  # nobody twice in a step, so ranks are disjoint
        met.update(people)
        for place, pid in enumerate(people):
            drawn = Counter(batch[place * K : (place + 1) * K])
            assert {pids[index] for index in drawn} == {pid}
            size = sizes[pid - 100]
            assert len(drawn) == min(size, K)
            assert max(drawn.values()) - min(drawn.values()) <= 1
            assert min(drawn.values()) >= K // size
    assert set(met) == set(pids)
    assert sum(met.values()) - len(sizes) < P * world_size  # only the last step is filled up
    assert len(one) == len(PKSampler(pids, P * world_size, K))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(tracklets_per_person, st.integers(0, 20), st.integers(0, 2), st.booleans())
def test_resumes_in_the_middle(sizes, stop, number, fetched_ahead):
    pids = [person for person, size in enumerate(sizes) for _ in range(size)]
    sampler = PKSampler(pids, 2, 2, seed=5)
    whole = epoch(sampler, number)
    after = epoch(sampler, number + 1)
    stop = min(stop, len(whole))
    sampler.set_epoch(number)
    batches = iter(sampler)
    for _ in range(len(whole) if fetched_ahead else stop):
        next(batches)
    state = pickle.loads(pickle.dumps(sampler.state_dict(stop if fetched_ahead else None)))
    again = PKSampler(pids, 2, 2, seed=5)
    again.load_state_dict(state)
    assert epoch(again, number) == whole[stop:]
    assert epoch(again, number) == whole  # from its start the next time
    assert epoch(again, number + 1) == after


def test_order_depends_on_seed_and_epoch_alone():
    pids = [person for person in range(12) for _ in range(3)]
    orders = {str(epoch(PKSampler(pids, 4, 2, seed=seed), number)) for seed in range(4) for number in range(4)}
    assert len(orders) == 16
    assert epoch(PKSampler(pids, 4, 2, seed=1), 3) == epoch(PKSampler(pids, 4, 2, seed=1), 3)
    shuffled = epoch(PKSampler([1000 + pid for pid in pids], 4, 2, seed=1), 3)
    assert shuffled == epoch(PKSampler(pids, 4, 2, seed=1), 3)


def test_a_run_goes_on_with_other_processes():
    pids = [person for person in range(12) for _ in range(3)]
    state = PKSampler(pids, 2, 2, world_size=2).state_dict(1)
    one = PKSampler(pids, 4, 2)
    whole = epoch(one, 0)
    one.load_state_dict(state)
    assert epoch(one, 0) == whole[1:]


def test_draws_are_numbered_once_in_the_whole_training():
    pids = [0, 1, 2, 2, 3, 4]
    numbers = []
    for rank in (0, 1):
        sampler = PKSampler(pids, 1, 3, rank=rank, world_size=2)
        for number in range(3):
            sampler.set_epoch(number)
            numbers += [index.number for batch in sampler for index in batch]
    assert len(set(numbers)) == len(numbers) == 3 * 3 * 2 * 3


def test_numbers_do_not_change_on_resuming():
    pids = [person for person in range(6) for _ in range(2)]
    sampler = PKSampler(pids, 2, 2)
    whole = [[index.number for index in batch] for batch in sampler]
    sampler.load_state_dict(sampler.state_dict(1))
    assert [[index.number for index in batch] for batch in sampler] == whole[1:]


def test_a_draw_is_an_index():
    draw = Draw(2, number=7)
    assert "abc"[draw] == "c"
    assert draw == 2
    again = pickle.loads(pickle.dumps(draw))
    assert (again, again.number) == (2, 7)
    assert repr(draw) == "Draw(2, number=7)"


def test_any_data_set_and_workers():
    pids = [0, 0, 1, 1, 2, 2]
    sampler = PKSampler(pids, 3, 2)
    loader = DataLoader(pids, batch_sampler=sampler, num_workers=1)
    (batch,) = loader
    assert sorted(batch.tolist()) == pids
    assert len(loader) == 1


def test_refuses_fewer_people_than_p():
    with pytest.raises(ValueError, match="P=4 must not be above the number of people, got 3 people; take a smaller P"):
        PKSampler([1, 2, 3, 3, 3], 4, 2)
    with pytest.raises(ValueError, match=r"P \* world_size = 2 \* 2 must not be above the number of people, got 3"):
        PKSampler([1, 2, 3], 2, 2, world_size=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"P": 0}, "P and K must be at least 1, got 0 and 2"),
        ({"K": 0}, "P and K must be at least 1, got 1 and 0"),
        ({"rank": 2, "world_size": 2}, "rank must be from 0 to world_size - 1 = 1, got 2"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_refuses_impossible_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        PKSampler([1, 2], **{"P": 1, "K": 2, **options})


def test_refuses_states_of_other_samplers_and_steps_beyond():
    sampler = PKSampler([1, 2, 3], 1, 2)
    with pytest.raises(ValueError, match="K must be that of the saved sampler, 2, got 3"):
        PKSampler([1, 2, 3], 1, 3).load_state_dict(sampler.state_dict())
    with pytest.raises(ValueError, match="num_people must be that of the saved sampler, 3, got 2"):
        PKSampler([1, 2, 2], 1, 2).load_state_dict(sampler.state_dict())
    with pytest.raises(ValueError, match="step must be from 0 to 3, the batches of an epoch, got 4"):
        sampler.state_dict(4)
    with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
        sampler.set_epoch(-1)
