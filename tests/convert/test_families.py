"""A family is inferred from keys of its own, never from a prefix; a file that cannot show it gets a question."""

import pytest
import torch
from safetensors.torch import save_file

import nl3d
from nl3d import from_checkpoint
from tests.convert.foreign import fixture, published
from tests.convert.test_checkpoint import TOLERANCE, worst_error

NVAN = "stenvan_nvan_r50"


def test_nvan_asks_for_the_family_once_the_order_is_lost(tmp_path):
    torch.save(published(NVAN), tmp_path / "NVAN.pth", _use_new_zipfile_serialization=False)
    assert worst_error(from_checkpoint(tmp_path / "NVAN.pth", num_classes=13), NVAN) < TOLERANCE
    save_file(published(NVAN), tmp_path / "NVAN.safetensors")
    for lost in (tmp_path / "NVAN.safetensors", dict(sorted(published(NVAN).items()))):
        with pytest.raises(ValueError, match=r"family must be given.*'stenvan'.*not STE_NVAN\.pth"):
            from_checkpoint(lost)
        assert worst_error(from_checkpoint(lost, family="stenvan", num_classes=13), NVAN) < TOLERANCE


def test_nvan_s_factory_and_record():
    spec = next(spec for spec in nl3d.list_weights("resnet3d50_nl") if spec.name == "mars_nvan")
    assert (spec.family, spec.license, spec.where) == ("stenvan", "MIT", spec.url)
    with pytest.raises(ValueError, match=r"from https://drive\.google\.com/.* by hand"):
        nl3d.resnet3d50_nl("mars_nvan")


@pytest.mark.parametrize("prefix", ["backbone.", "base.", "encoder.", "module.encoder_q.", "net.resnet."])
@pytest.mark.parametrize("classes", [5, 0])
def test_a_plain_resnet_under_a_prefix_is_a_question_that_its_family_answers(prefix, classes):
    tensors, clips, wanted = fixture("torchvision_resnet50")
    kept = {key: tensor for key, tensor in tensors.items() if classes or not key.startswith("fc.")}
    prefixed = {"state_dict": {prefix + key: tensor for key, tensor in kept.items()}}
    with pytest.raises(ValueError, match=r"family must be given.*'torchvision'"):
        from_checkpoint(prefixed)
    with torch.no_grad():
        features = from_checkpoint(prefixed, family="torchvision")(clips).features
    torch.testing.assert_close(features, wanted["pooled"], rtol=1e-5, atol=1e-5)


def test_a_sequential_backbone_without_a_neck_is_not_taken_for_mctrack():
    places = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    tensors = {}
    for key, tensor in fixture("torchvision_resnet50")[0].items():
        child, _, rest = key.partition(".")
        if child in places:
            tensors[f"backbone.{places[child]}.{rest}"] = tensor
    with pytest.raises(ValueError, match="family must be given"):
        from_checkpoint(tensors)


def test_3d_networks_of_one_channel_are_not_taken_for_hara_s():
    tensors = dict(fixture("hara_r3d50")[0])
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :1].clone()
    with pytest.raises(ValueError, match=r"family must be given.*'hara_r3d'"):
        from_checkpoint(tensors)


def test_a_hundred_thousand_keys_are_refused_at_once():
    tensors = {f"layer1.{number}.theta.weight": torch.zeros(1) for number in range(100_000)}
    with pytest.raises(ValueError, match=r"at most 10000 tensors, but holds 100000"):
        from_checkpoint(tensors)
