"""Two gloo processes against one on the same batch; launchers, and ranks that stop, with real processes."""

import contextlib
import copy
import dataclasses
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from accelerate.state import AcceleratorState
from torch import nn

from nl3d.training.checkpoint import read_checkpoint
from nl3d.training.config import TrainingConfig
from nl3d.training.ranks import make_accelerator, processes_started
from tests.training.toys import toy_config


def test_two_processes_give_the_loss_and_gradients_of_one():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        mp.spawn(_compare, args=(store.port,), nprocs=2)


def _compare(rank, port):
    from accelerate import Accelerator

    from nl3d.losses import ReIDLoss
    from nl3d.training.networks import build_network
    from nl3d.training.step import backward
    from tests.oracles import randomise
    from tests.training.toys import toy_config

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_network(toy_config(dropout=0.0), 4).train()
    randomise(network)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # else each process has its own statistics
    clips, pids = torch.randn(8, 3, 2, 32, 16), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    alone = copy.deepcopy(network)
    whole = ReIDLoss().parts(alone(clips), pids)
    whole.total.backward()
    expected = {name: part.detach() for name, part in whole._asdict().items()}

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60))
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    share = slice(4 * rank, 4 * rank + 4)
    for mining, sizes in (("batch", (4,)), ("batch", (2, 2))):
        copied = copy.deepcopy(network)
        model = accelerator.prepare(copied)
        batches = list(zip(clips[share].split(sizes), pids[share].split(sizes), strict=True))
        parts = backward(accelerator, model, ReIDLoss(gather=True), batches, mining=mining)
        losses = accelerator.reduce(parts, reduction="mean")
        torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
        assert losses["triplet"] > 0
        for one, other in zip(copied.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)
    _compare_evaluations(accelerator)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # the threads of gloo now and then abort a process that ends the usual way


def _compare_evaluations(accelerator):
    """Two ranks embed every second tracklet each, an odd number in all; both get the scores of one that embeds all."""
    from nl3d.data.dataset import ReIDDataset
    from nl3d.training.evaluation import Evaluation
    from tests.training.test_data import Means, Rank, tracklets
    from tests.training.toys import toy_config

    people = tracklets([1, 1, 2, 2, 3, 3, 4], [0, 1, 0, 1, 0, 1, 0], torch.Generator().manual_seed(0))
    dataset = ReIDDataset(name="toy", query=people[:6:2], gallery=people)
    shared = Evaluation(dataset, toy_config(eval_batch=3), accelerator)
    alone = Evaluation(dataset, toy_config(eval_batch=3), Rank(0, 1))
    rows, unreadable = shared.embed(Means().eval())
    expected, _ = alone.embed(Means().eval())
    torch.testing.assert_close(rows, expected)
    assert (len(rows), unreadable) == (7, 0)
    assert shared(Means().eval()) == alone(Means().eval())


ROOT = Path(__file__).parents[2]
TOY = [
    f"--{name.replace('_', '-')}={json.dumps(value) if isinstance(value, dict) else value}"
    for name, value in dataclasses.asdict(toy_config()).items()
    if value != getattr(TrainingConfig(), name)
]


def launch(module, *arguments):
    """Start a launcher as its own process group, so that the test can end whatever it started."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environ.pop(name, None)
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(
        command, env=environ, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def torchrun(folder, *arguments):
    options = ["--standalone", "--nproc-per-node", "2", str(ROOT / "examples" / "train.py")]
    return launch("torch.distributed.run", *options, *TOY, "--no-board", "--output", str(folder), *arguments)


def test_torchrun_trains_one_network(tmp_path):
    process = torchrun(tmp_path, "--epochs=1")
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert text.count("epoch 1: loss") == text.count("walkers: rank-1") == 1
    _, state = read_checkpoint(tmp_path / "last.safetensors")
    assert (state["num_processes"], state["progress"]["step"]) == (2, 2)


def test_accelerate_on_the_cpu_trains_one_network_and_says_on_how_many_processes(tmp_path):
    options = [
        "launch",
        "--cpu",
        "--num_processes=2",
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
    ]
    script = [str(ROOT / "examples" / "train.py"), *TOY, "--epochs=1", "--no-board", "--output", str(tmp_path)]
    process = launch("accelerate.commands.accelerate_cli", *options, *script)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert text.count("epoch 1: loss") == text.count("walkers: rank-1") == 1
    assert "accelerate launch --cpu started one process, which trains alone; use torchrun --nproc-per-node N" in text
    assert read_checkpoint(tmp_path / "last.safetensors")[1]["num_processes"] == 1


@pytest.mark.parametrize("stopped", [0, 1])
def test_stopped_rank_is_named(tmp_path, stopped):
    process = torchrun(tmp_path, "--epochs=100000", "--rank-timeout=3")
    ranks = []
    try:
        end = time.monotonic() + 100
        while not (tmp_path / "last.safetensors").is_file():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.1)
        ranks = [pid_of_rank(process.pid, rank) for rank in (0, 1)]  # now, since they outlive their launcher
        os.kill(ranks[stopped], signal.SIGSTOP)
        for line in process.stdout:
            if line.startswith("nl3d:"):
                break
        assert f"every rank must answer within 3 s, but rank {stopped} did not: it died or was stopped;" in line
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        for pid in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)


def pid_of_rank(launcher, rank):
    """Process of a rank, of those that a launcher started."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            environ = status.with_name("environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == launcher and f"RANK={rank}".encode() in environ:
            return int(status.parent.name)
    return None


def test_started_processes_without_a_group_are_refused(monkeypatch):
    """As many processes as are started must be in the group; here a launcher says 3 and the group has 1."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    try:
        with pytest.raises(ValueError, match="must form one group, but 3 were started and the group has 1; start them"):
            make_accelerator(toy_config())
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "4"}, 4),
        ({"OMPI_COMM_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "host"}, 2),
        ({"ACCELERATE_USE_CPU": "True"}, 1),
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, 1),
        ({"ACCELERATE_USE_CPU": "False", "MASTER_ADDR": "host"}, 1),
    ],
)
def test_number_of_started_processes(environ, count):
    assert processes_started(environ) == count


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number from 1 on, got 'two'"),
        ({"ACCELERATE_USE_CPU": "1", "MASTER_ADDR": "host"}, "num_machines must be 1 for accelerate launch --cpu;"),
    ],
)
def test_environment_is_refused(environ, message):
    with pytest.raises(ValueError, match=message):
        processes_started(environ)
