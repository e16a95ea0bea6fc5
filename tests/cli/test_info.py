"""What a network and a file of embeddings are, in lines and in JSON."""

import json

import pytest
import torch

import nl3d
from nl3d.cli import main


def told(capsys, *arguments):
    assert main(["info", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_network_by_name(capsys):
    found = told(capsys, "bundled")
    model = nl3d.from_pretrained("bundled")
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["clip"] == "4 frames of 96x48, every 8"
    assert (found["licence"], found["embedding"], found["compared by"]) == ("apache-2.0", 256, "embedding")
    assert "not from a checkpoint" not in found
    assert main(["info", "bundled"]) == 0
    assert f"parameters           {found['parameters']:,}\n" in capsys.readouterr().out


def test_operations_are_those_of_the_convolutions(tmp_path, capsys):
    options = {"block": "basic", "block_counts": (1, 1, 1, 1), "base_width": 4, "layout": "full", "embedding_dim": 8}
    model = nl3d.ResNet3d(**options)
    model.pretrained_cfg.update(num_frames=2, input_size=(3, 32, 16))
    model.save_pretrained(tmp_path / "net")
    products = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.Linear):
            module.register_forward_hook(lambda m, _, y: products.append(m.weight[0].numel() * y.numel()))
    model.eval()(torch.zeros(1, 3, 2, 32, 16))
    assert told(capsys, tmp_path / "net")["operations per clip"] == 2 * sum(products)


def test_a_file_of_embeddings(tmp_path, capsys):
    metadata = {"network": "abc", "model": "net", "notes": json.dumps({"clipped_boxes": 3, "dropped_boxes": 0})}
    embeddings = nl3d.Embeddings(torch.eye(3), people=("ann", None, "bob"), cameras=("1", "1", "1"), metadata=metadata)
    embeddings.save(tmp_path / "a.safetensors")
    found = told(capsys, tmp_path / "a.safetensors")
    expected = {"embeddings": 3, "width": 3, "people": 2, "without people": 1, "cameras": 1, "network": "abc"}
    assert {name: found[name] for name in expected} == expected
    assert found["notes: clipped_boxes"] == 3
    assert "notes: dropped_boxes" not in found


@pytest.mark.parametrize("name", ["none", "text.safetensors", "text.npz"])
def test_neither_is_one_sentence(name, tmp_path, capsys):
    if name != "none":
        (tmp_path / name).write_text("hello")
    assert main(["info", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
