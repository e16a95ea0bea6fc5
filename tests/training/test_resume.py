"""A run killed at any moment and started again ends with the bits of one that was never stopped."""

import importlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from nl3d.training.checkpoint import read_checkpoint
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
    ("nl3d.training.checkpoint._sync", 0),  # written, not renamed
    ("nl3d.training.checkpoint._sync", 3),  # renamed
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
