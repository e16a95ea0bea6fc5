import json
import random

import numpy as np
import pytest
import torch

from nl3d.training.checkpoint import (
    join_optimizer,
    read_checkpoint,
    restore_rng,
    rng_tensors,
    split_optimizer,
    write_checkpoint,
    write_text,
)

CPU = torch.device("cpu")


def test_there_and_back(tmp_path):
    path = tmp_path / "new" / "a.safetensors"
    whole = torch.randn(4, 6)
    tensors = {"view": whole[:, ::2], "same": whole, "byte": torch.tensor([3], dtype=torch.uint8)}
    state = {"rate": 0.1 + 0.2, "history": [{"epoch": 1}], "none": None}
    write_checkpoint(path, tensors, state)
    found, found_state = read_checkpoint(path)
    assert found_state == state
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert [entry.name for entry in path.parent.iterdir()] == ["a.safetensors"]


def test_equal_states_are_equal_bytes(tmp_path):
    for name in "ab":
        write_checkpoint(tmp_path / name, {"x": torch.arange(3), "y": torch.zeros(2)}, {"one": 1, "two": [2]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, {"x": torch.ones(1)}, {})
    with pytest.raises(TypeError):
        write_checkpoint(path, {"x": torch.zeros(1)}, {"no JSON": {1, 2}})
    assert read_checkpoint(path)[0]["x"] == 1
    write_text(tmp_path / "t", "one")
    write_text(tmp_path / "t", "two")
    assert (tmp_path / "t").read_text() == "two"


def test_refuses_what_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint must name an existing file"):
        read_checkpoint(tmp_path / "none")
    (tmp_path / "half").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    with pytest.raises(ValueError, match=r"must be whole, got .*half.*; remove it to train from the start"):
        read_checkpoint(tmp_path / "half")
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "weights", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="without a run's header"):
        read_checkpoint(tmp_path / "weights")


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_optimiser_goes_on_with_the_same_bits(kind):
    def make():
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 2)
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {"betas": (0.8, 0.9)}
        return network, kind(network.parameters(), lr=0.1, weight_decay=0.1, **options)

    def step(network, optimizer, times):
        for time in range(times):
            optimizer.zero_grad()
            network(torch.full((1, 3), float(time + 1))).square().sum().backward()
            optimizer.step()

    network, optimizer = make()
    step(network, optimizer, 3)
    tensors, rest = split_optimizer(optimizer)
    rest = json.loads(json.dumps(rest))
    other, other_optimizer = make()
    other.load_state_dict(network.state_dict())
    join_optimizer(other_optimizer, {name: tensor.clone() for name, tensor in tensors.items()}, rest)
    step(network, optimizer, 3)
    step(other, other_optimizer, 3)
    assert torch.equal(network.weight, other.weight)
    assert other_optimizer.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_random_generators_go_on():
    def draw():
        return torch.rand(2).tolist(), random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()  # noqa: NPY002

    draw()  # leaves a second normal number waiting in random and numpy
    state = {name: tensor.clone() for name, tensor in rng_tensors(CPU).items()}
    first = draw()
    assert draw() != first
    restore_rng(state, CPU)
    assert draw() == first
