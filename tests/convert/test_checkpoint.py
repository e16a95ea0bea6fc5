"""Networks read from other projects' checkpoints compute what those projects' own code computed."""

import pytest
import torch
from safetensors.torch import save_file

from nl3d import from_checkpoint
from nl3d.convert.families.table import FAMILIES, families
from tests.convert.foreign import FIXTURES, MANIFESTS, PARITY, fixture, meta_state_dict, published

TOLERANCE = 2e-5  # of the largest value; the projects' own float32 noise is up to that, and mistakes are above 1e-2
BLOBS = ("pyslowfast_i3d_nln_r50", "tushar_i3res50_nl")


def outputs(model, clips):
    """Everything that the ground truth names, frame axis included."""
    seen = {}
    stages = ("layer1", "layer2", "layer3", "layer4")
    for name, module in (("stem", model.maxpool), *((stage, getattr(model, stage)) for stage in stages)):
        module.register_forward_hook(lambda module, args, out, name=name: seen.__setitem__(name, out))
    if hasattr(model, "layer1_pool"):
        model.layer1_pool.register_forward_hook(lambda module, args, out: seen.__setitem__("layer1_pooled", out))
    with torch.no_grad():
        out = model(clips)
    return {
        **seen,
        "features": seen["layer4"],
        "pooled": out.features,
        "embedding": out.embedding,
        "logits": out.logits,
    }


def worst_error(model, name):
    _, clips, wanted = fixture(name)
    got = outputs(model, clips)
    errors = {}
    for key, tensor in wanted.items():
        if key in ("probs", "frame_features"):  # softmax of the logits; what the pool takes the mean of
            continue
        ours = got[key]
        if tensor.ndim == 4:
            ours = ours.squeeze(2)
        assert ours.shape == tensor.shape, key
        errors[key] = ((ours - tensor).abs().max() / tensor.abs().max()).item()
    return max(errors.values())


@pytest.mark.parametrize("name", FIXTURES)
def test_computes_what_the_original_computed(name, record_property):
    classes = fixture(name)[2]["logits"].shape[1]
    model = from_checkpoint(published(name), num_classes=classes)
    assert model.pretrained_cfg["family"] == FIXTURES[name]["family"]
    assert not model.training
    assert model.new_tensors == ()
    error = worst_error(model, name)
    record_property("worst_error", error)
    assert error < TOLERANCE


@pytest.mark.parametrize("name", BLOBS)
def test_caffe2_pickles_compute_the_same_once_the_project_is_told(name):
    path = PARITY / f"{name}.caffe2.pkl"
    with pytest.raises(ValueError, match="'pyslowfast' or 'tushar_i3res50'"):
        from_checkpoint(path)
    classes = fixture(name)[2]["logits"].shape[1]
    model = from_checkpoint(path, family=FIXTURES[name]["family"], num_classes=classes)
    assert worst_error(model, name) < TOLERANCE


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("name", ["torchreid_resnet50", "mmaction2_i3d_r50_nl_embedded_gaussian"])
def test_every_kind_of_file_gives_the_same_network(name, kind, tmp_path):
    path = tmp_path / "checkpoint"
    if kind == "safetensors":
        save_file(fixture(name)[0], path)
    else:
        torch.save(published(name), path, _use_new_zipfile_serialization=kind == "zip")
    classes = fixture(name)[2]["logits"].shape[1]
    model = from_checkpoint(str(path), num_classes=classes)
    wanted = from_checkpoint(published(name), num_classes=classes)
    assert all(torch.equal(tensor, wanted.state_dict()[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_every_key_of_a_published_file_has_its_place(manifest):
    tensors = meta_state_dict(manifest)
    family = None
    if ".caffe2" in manifest:
        family = "tushar_i3res50" if "tushar" in manifest else "pyslowfast"
    classifier = [tensor for key, tensor in tensors.items() if key.endswith(("weight", "_w")) and tensor.ndim == 2][-1]
    model = from_checkpoint(tensors, family=family, num_classes=len(classifier))
    assert set(model.new_tensors) <= {"head.pool.p"}  # current fast-reid fixes the power in its code
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert model.num_classes == len(classifier)


@pytest.mark.parametrize(
    "name", ["fastreid_bot_r50", "ap3d_c2d_nl_r50", "reid_strong_baseline_r50", "torchreid_resnet50"]
)
def test_person_networks_keep_their_own_embedding(name):
    model = from_checkpoint(published(name))
    _, clips, wanted = fixture(name)
    with torch.no_grad():
        out = model(clips)
    assert out.logits is None
    torch.testing.assert_close(
        out.embedding, wanted["embedding"], rtol=0, atol=1e-4 * wanted["embedding"].abs().max().item()
    )
    assert model.new_tensors == ()
    assert from_checkpoint(published(name), num_classes=5).new_tensors[0].startswith("head.classifier")


def test_other_networks_get_a_fresh_head_for_persons():
    model = from_checkpoint(published("hara_r3d50"))
    assert type(model.head).__name__ == "ReIDHead"
    assert {key.split(".")[0] for key in model.new_tensors} == {"head"}
    assert model.embedding_dim == 512
    assert model.num_classes == 0
    assert model.head.fc.bias.abs().max() == 0  # as a head of ours starts, not as a layer of PyTorch does
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert from_checkpoint(published("hara_r3d50"), num_classes=5).num_classes == 5
    assert type(from_checkpoint(published("hara_r3d50"), head="linear").head).__name__ == "LinearHead"
    assert type(from_checkpoint(published("fastreid_bot_r50"), head="bottleneck").head).__name__ == "ReIDHead"


def test_what_a_fresh_head_pools_with_is_the_files_own():
    model = from_checkpoint(published("fastreid_agw_r50"), head="bottleneck", num_classes=3)
    assert model.head.pool.p.item() == fixture("fastreid_agw_r50")[0]["heads.pool_layer.p"].item()
    assert from_checkpoint(published("fastreid_agw_r50"), head="bottleneck", pool="avg").head.pool.kind == "avg"


def test_preprocessing_is_what_the_network_was_trained_with():
    for name, entry in FIXTURES.items():
        cfg = from_checkpoint(published(name)).pretrained_cfg
        scale = 255 if entry["normalisation"]["range"].startswith("RGB in [0,255]") else 1
        for key in ("mean", "std"):
            torch.testing.assert_close(
                torch.tensor(cfg[key]), torch.tensor(entry["normalisation"][key]) / scale, rtol=0, atol=1e-6
            )
        assert cfg["dtype"] == "float32"


def test_the_pickles_of_2018_and_2020_are_told_apart():
    by_2018 = from_checkpoint(published("hara_r3d50_a_module")).pretrained_cfg
    assert by_2018["std"] == (1 / 255, 1 / 255, 1 / 255)


def test_all_families_have_their_ground_truth():
    shown = {entry["family"] for entry in FIXTURES.values()} | {"timm", "nl3d"}
    shown |= {"mctrack_reid"}  # its code was read, not run: tests/convert/test_mctrack.py builds its network again
    assert shown == set(FAMILIES) == set(families())


def test_the_page_lists_every_family():
    page = (PARITY.parent.parent / "docs" / "checkpoints.md").read_text()
    assert all(f"| `{name}` |" in page for name in families())
