"""A run killed at any moment and started again ends with the bits of one that was never stopped."""

import importlib
import itertools
import json
import multiprocessing
import os
import random
import resource
import signal
import time

import pytest
import torch

from nl3d.training.checkpoint import read_checkpoint, write_checkpoint
from nl3d.training.run import run_training
from tests.training.toys import toy_config

# Averages, dropout, erasing, micro-batches and checkpoints within an epoch: all that has a state.
CONFIG = {"ema": 0.9, "erasing": 0.5, "accumulate": 2, "checkpoint_every": 1, "epochs": 3, "eval_every": 1}
CONFIG["channels_last"] = True  # moments come back in another layout than they were made in

# Where to kill, and before which call of it in that process.
MOMENTS = [
    ("nl3d.training.loop.backward", 0),  # nothing written yet
    ("nl3d.training.checkpoint.save_file", 0),
    ("half a file", 1),
    ("nl3d.files._sync", 0),  # written, not renamed
    ("nl3d.files._sync", 3),  # renamed
    ("nl3d.training.loop.learning_rate", 1),
    ("nl3d.training.loop.Trainer._evaluate", 0),  # a whole epoch, not evaluated
    ("nl3d.training.loop.Trainer.save", 1),  # the best is written, the last is older
    ("nl3d.training.loop.write_text", 0),  # the epoch is saved, its history not
    ("nl3d.training.run.write_text", 1),  # all but the result
]


@pytest.fixture(scope="module")
def processes():
    """Processes that start in milliseconds: forked from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["accelerate", "nl3d.training.run", __name__])
    return context


def _work(run, changes, moment=None):
    torch.set_num_threads(1)
    if moment:
        _kill_at(*moment)
    run_training(toy_config(**changes), run, board=False)


def _kill_at(target, number):
    """Let the process kill itself before a call of a function."""
    half = target == "half a file"
    owner, _, name = ("nl3d.training.checkpoint.save_file" if half else target).rpartition(".")
    if owner.endswith("Trainer"):
        owner = getattr(importlib.import_module(owner.removesuffix(".Trainer")), "Trainer")  # noqa: B009
    else:
        owner = importlib.import_module(owner)
    function, calls = getattr(owner, name), itertools.count()

    def killing(*arguments, **options):
        if next(calls) == number:
            if half:
                function(*arguments, **options)
                path = arguments[1]
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    setattr(owner, name, killing)


def start(processes, run, changes, moment=None):
    process = processes.Process(target=_work, args=(run, changes, moment))
    process.start()
    return process


def finish(process):
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture(scope="module")
def unbroken(processes, tmp_path_factory):
    run = tmp_path_factory.mktemp("unbroken")
    assert finish(start(processes, run, CONFIG)) == 0
    return run


def assert_same_run(run, other, *, ignore=()):
    for name in ("last.safetensors", "best.safetensors"):
        tensors, state = read_checkpoint(run / name)
        others, other_state = read_checkpoint(other / name)
        assert tensors.keys() == others.keys()
        for key in tensors:
            assert torch.equal(tensors[key], others[key]), key
        for option in ignore:
            state["config"].pop(option), other_state["config"].pop(option)
        assert state == other_state
    assert (run / "history.json").read_text() == (other / "history.json").read_text()
    one, two = (json.loads((folder / "result.json").read_text())["result"] for folder in (run, other))
    assert one == two


def test_killed_at_every_kind_of_moment(processes, unbroken, tmp_path):
    for moment in MOMENTS:
        assert finish(start(processes, tmp_path, CONFIG, moment)) == -signal.SIGKILL, f"{moment} never came"
    assert finish(start(processes, tmp_path, CONFIG)) == 0
    assert_same_run(tmp_path, unbroken)
    tensors, _ = read_checkpoint(tmp_path / "last.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"model", "optimizer", "average", "rng"}


def test_killed_at_random_times_with_and_without_workers(processes, unbroken, tmp_path):
    chance = random.Random(time.time_ns())
    # A loader process fetches ahead of the steps. It outlives its killed parent by seconds, so only the first has one.
    for workers in (1, 0, 0):
        process = start(processes, tmp_path, {**CONFIG, "num_workers": workers})
        time.sleep(chance.uniform(0.2, 0.8))
        os.kill(process.pid, signal.SIGKILL)
        finish(process)
    assert finish(start(processes, tmp_path, CONFIG)) == 0
    assert_same_run(tmp_path, unbroken, ignore=("num_workers",))


def test_finished_run_is_not_repeated(unbroken):
    before = (unbroken / "last.safetensors").stat().st_mtime_ns
    result = run_training(toy_config(**CONFIG), unbroken)
    assert result == json.loads((unbroken / "result.json").read_text())["result"]
    assert (unbroken / "last.safetensors").stat().st_mtime_ns == before


def damaged(tensors, state):
    """Ways in which a checkpoint can be another version's, or no checkpoint at all."""
    progress = dict(state["progress"])
    yield {name: value for name, value in tensors.items() if name != "model.bn1.weight"}, state
    yield {**tensors, "model.bn1.weight": torch.zeros(3)}, state
    yield {name: value for name, value in tensors.items() if not name.startswith("rng.")}, state
    yield tensors, {**state, "progress": {**progress, "speed": 1}}
    yield tensors, {**state, "progress": 3}
    yield tensors, {**state, "batches": {}}
    yield tensors, {**state, "batches": 3}
    yield tensors, {**state, "batches": {**state["batches"], "num_people": 9}}
    yield tensors, {name: value for name, value in state.items() if name != "optimizer"}
    yield tensors, {name: value for name, value in state.items() if name != "num_averaged"}
    yield tensors, {name: value for name, value in state.items() if name != "config"}
    yield tensors, {**state, "config": []}


def refuses_in_one_sentence(run, name):
    with pytest.raises(ValueError, match=name) as refused:
        run_training(toy_config(**CONFIG), run, board=False)
    text = str(refused.value)
    assert "\n" not in text
    assert "remove" in text
    assert len(text) < 500


def test_damaged_checkpoint_is_refused_in_one_sentence(unbroken, tmp_path):
    tensors, state = read_checkpoint(unbroken / "last.safetensors")
    path = tmp_path / "last.safetensors"
    for number, (changed, other) in enumerate(damaged(tensors, state)):
        write_checkpoint(path, changed, other)
        refuses_in_one_sentence(tmp_path, r"checkpoint .*must (be of this data and this version|hold a configuration)")
        assert read_checkpoint(path)[1] == json.loads(json.dumps(other)), number
    whole = (unbroken / "last.safetensors").read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:6], b"", b"\xff" * 100, whole[:8] + b"[" + whole[9:]):
        path.write_bytes(broken)
        refuses_in_one_sentence(tmp_path, r"checkpoint must be whole, got .*last\.safetensors")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": {}}', '{"config": 3, "result": {}}', "null"])
def test_damaged_result_is_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    refuses_in_one_sentence(tmp_path, r"result\.json' must be a run's result, but is damaged")


def test_full_disk_is_named_and_the_old_checkpoint_resumes(unbroken, tmp_path):
    """A limit on the size of files stands for a disk without room: writes fail in the same way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"last\.safetensors' cannot be written \(.*File too large.*\); make room"):
            run_training(toy_config(**CONFIG), tmp_path, board=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("*.safetensors*"))
    run_training(toy_config(**CONFIG), tmp_path, board=False)
    assert_same_run(tmp_path, unbroken)
