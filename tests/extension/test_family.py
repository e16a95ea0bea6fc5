"""Checkpoints of a project of one's own, read by ``nl3d.from_checkpoint`` and by every factory."""

import pytest
import torch

import nl3d
from nl3d.convert import Family, register_family, resnet_rules
from nl3d.convert.families import table
from tests.oracles import randomise

TOY = Family(
    name="toy-project",
    about="ResNet for clips, under names of its own",
    required_keys=(r"people\.trunk\.conv1\.weight", r"people\.names\.weight"),
    rules=(
        *resnet_rules(r"people\.trunk\."),
        (r"people\.vector\.(weight|bias)", r"head.fc.\1"),
        (r"people\.norm\.(\w+)", r"head.bn.\1"),
        (r"people\.names\.(weight|bias)", r"head.classifier.\1"),
    ),
    is_reid=True,
    preprocessing={"mean": (0.5,) * 3, "std": (0.5,) * 3, "num_frames": 4, "frame_step": 2, "input_size": (3, 64, 32)},
)
NAMES = {"head.fc": "vector", "head.bn": "norm", "head.classifier": "names"}


def foreign_name(key):
    layer, _, last = key.rpartition(".")
    return f"people.{NAMES[layer]}.{last}" if layer in NAMES else f"people.trunk.{key}"


@pytest.fixture
def _registered():
    register_family(TOY)
    yield
    del table.FAMILIES["toy-project"]


@pytest.mark.usefixtures("_registered")
def test_registered_family_is_read(tmp_path):
    network = randomise(nl3d.resnet3d18(num_classes=3, base_width=4, layout="full", embedding_dim=8)).eval()
    path = tmp_path / "theirs.pth"
    torch.save({foreign_name(key): tensor for key, tensor in network.state_dict().items()}, path)
    found = nl3d.from_checkpoint(path, num_classes=3).eval()
    clips = torch.randn(2, 3, 4, 64, 32)
    torch.testing.assert_close(found(clips).embedding, network(clips).embedding)
    torch.testing.assert_close(found(clips).logits, network(clips).logits)
    assert (found.pretrained_cfg["num_frames"], found.pretrained_cfg["input_size"]) == (4, (3, 64, 32))
    with pytest.raises(ValueError, match="family must have a name of its own, got 'toy-project'"):
        register_family(TOY)
