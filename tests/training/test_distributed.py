"""Two gloo processes against one on the same batch, and the launcher that shall start them."""

import copy
import datetime
import os
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from nl3d.training.launch import replacement_command

LAUNCH = ["python", "accelerate", "launch", "--num_processes", "2", "--cpu", "train.py", "--num_processes", "9"]


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
    expected = torch.stack([part.detach() for part in whole])

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
        assert losses[2] > 0
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


def test_missing_processes_are_started():
    command = replacement_command({"ACCELERATE_USE_CPU": "True"}, LAUNCH, ["train.py", "--num_processes", "9"])
    assert command[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert command[6:] == ["train.py", "--num_processes", "9"]


@pytest.mark.parametrize(
    ("environ", "parent"),
    [
        ({}, LAUNCH),
        ({"ACCELERATE_USE_CPU": "False"}, LAUNCH),
        ({"ACCELERATE_USE_CPU": "True", "LOCAL_RANK": "0"}, LAUNCH),
        ({"ACCELERATE_USE_CPU": "True", "PMI_RANK": "0"}, LAUNCH),
        ({"ACCELERATE_USE_CPU": "True"}, ["accelerate", "launch", "--cpu", "train.py", "--num_processes=3"]),
        ({"ACCELERATE_USE_CPU": "True"}, ["accelerate", "launch", "--cpu", "--num-processes=1", "train.py"]),
        ({"ACCELERATE_USE_CPU": "True"}, ["bash"]),
    ],
)
def test_nothing_is_started_where_nothing_is_missing(environ, parent):
    assert replacement_command(environ, parent, ["train.py"]) == []


def test_several_machines_are_refused():
    with pytest.raises(ValueError, match=r"num_machines must be 1 for accelerate launch --cpu; .* torchrun"):
        replacement_command({"ACCELERATE_USE_CPU": "1"}, ["launch", "--num_machines=2", "train.py"], ["train.py"])
