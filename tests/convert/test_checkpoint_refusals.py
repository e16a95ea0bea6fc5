"""What is no public ResNet checkpoint gives one clear sentence, and what is only unusual gives the right network."""

from collections import OrderedDict

import pytest
import torch

from nl3d import from_checkpoint
from nl3d.convert.families import table
from nl3d.convert.families.table import register_family
from nl3d.convert.family import Family
from nl3d.models.resnet3d import ResNet3d
from tests.convert.foreign import FIXTURES, fixture, published

PLAIN = "torchvision_resnet50"


def without(name, *keys):
    return {key: tensor for key, tensor in fixture(name)[0].items() if not key.endswith(keys)}


def one_sentence(message):
    return "\n" not in message and not message.endswith(".") and len(message) < 700


@pytest.mark.parametrize("name", FIXTURES)
def test_a_key_too_many_is_named(name):
    with pytest.raises(ValueError, match=r"layer9\.extra\.weight") as refusal:
        from_checkpoint({**fixture(name)[0], "layer9.extra.weight": torch.zeros(3)})
    assert one_sentence(str(refusal.value))


@pytest.mark.parametrize("name", FIXTURES)
def test_a_key_too_few_is_named(name):
    tensors = fixture(name)[0]
    classes = fixture(name)[2]["logits"].shape[1]
    spare = (
        "num_batches_tracked",
        "pixel_mean",
        "pixel_std",
        "pool_layer.p",
    )  # a count, preprocessing, and a power with a default
    if not any(key.endswith("classifier.bias") or "fc" in key for key in tensors):
        spare += ("classifier.weight",)  # all of the classifier: such a file is a backbone with a neck
    keys = [key for key in tensors if not key.endswith(spare)]
    for key in keys[:: max(len(keys) // 12, 1)] + keys[-1:]:
        with pytest.raises(ValueError) as refusal:  # noqa: PT011
            from_checkpoint({other: tensor for other, tensor in tensors.items() if other != key}, num_classes=classes)
        assert one_sentence(str(refusal.value)), key


@pytest.mark.parametrize("name", FIXTURES)
def test_a_transposed_kernel_is_refused(name):
    tensors = fixture(name)[0]
    classes = fixture(name)[2]["logits"].shape[1]
    oblong = [key for key, tensor in tensors.items() if tensor.ndim > 1 and tensor.shape[0] != tensor.shape[1]]
    for key in [key for key in oblong if not key.startswith("pixel")][::5]:
        with pytest.raises(ValueError) as refusal:  # noqa: PT011
            from_checkpoint({**tensors, key: tensors[key].transpose(0, 1)}, num_classes=classes)
        assert one_sentence(str(refusal.value)), key


@pytest.mark.parametrize("name", FIXTURES)
def test_a_wrong_family_is_refused(name):
    own = FIXTURES[name]["family"]
    for family in {entry["family"] for entry in FIXTURES.values()} - {own}:
        with pytest.raises(ValueError, match=f"^family must be one whose files.*got {family!r}.*{own}"):
            from_checkpoint(published(name), family=family)
    assert from_checkpoint(published(name), family=own).pretrained_cfg["family"] == own


def test_an_unknown_family_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"family must be one of nl3d, torchvision, .* got 'kinetics'"):
        from_checkpoint(published(PLAIN), family="kinetics")


def test_a_timm_file_is_found_as_torchvision_and_may_be_told_as_timm():
    told, found = from_checkpoint(published(PLAIN), family="timm"), from_checkpoint(published(PLAIN))
    assert (told.pretrained_cfg["family"], found.pretrained_cfg["family"]) == ("timm", "torchvision")
    assert torch.equal(told.conv1.weight, found.conv1.weight)


@pytest.mark.parametrize("name", ["hara_r3d50", "tushar_i3res50_nl"])
def test_a_backbone_alone_may_be_ours_or_theirs(name):
    backbone = {key: tensor for key, tensor in without(name, "fc.weight", "fc.bias").items() if ".nl." not in key}
    with pytest.raises(ValueError, match=f"family must be given.*'nl3d' or '{FIXTURES[name]['family']}'"):
        from_checkpoint(backbone)
    assert from_checkpoint(backbone, family=FIXTURES[name]["family"]).new_tensors


@pytest.mark.parametrize("prefix", ["backbone.", "base.", "features.", "encoder.trunk."])
def test_a_plain_network_under_a_prefix_asks_for_its_family(prefix):
    plain = without(PLAIN, "fc.weight", "fc.bias")
    prefixed = {f"{prefix}{key}": tensor for key, tensor in plain.items()}
    with pytest.raises(ValueError, match=r"^family must be given, .*'torchvision'"):
        from_checkpoint(prefixed)
    model, wanted = from_checkpoint(prefixed, family="torchvision"), from_checkpoint(plain)
    assert all(torch.equal(tensor, wanted.state_dict()[key]) for key, tensor in model.state_dict().items()
               if not key.startswith("head."))  # fmt: skip


def test_nvan_is_never_taken_for_another_network():
    nvan = fixture("stenvan_nvan_r50")[0]
    assert from_checkpoint(nvan).pretrained_cfg["family"] == "stenvan"
    stripped = {key.replace("features.", ""): tensor for key, tensor in nvan.items()}
    for lost in (dict(sorted(nvan.items())), stripped):
        with pytest.raises(ValueError, match=r"^family must be given, .*'stenvan'"):
            from_checkpoint(lost)
        told = from_checkpoint(lost, family="stenvan").state_dict()
        wanted = from_checkpoint(nvan).state_dict()
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in told.items())


def test_the_network_with_stripes_is_refused_whatever_is_said():
    nvan = {key.removeprefix("module."): tensor for key, tensor in fixture("stenvan_nvan_r50")[0].items()}
    places = {"g": 0, "theta": 1, "phi": 2, "W": 3}

    def place(key):
        block, layer = key.rsplit(".NL_", 1)[1].split(".")[:2], key.rsplit(".NL_", 1)[1].split(".")[2]
        return block, places[layer]

    blocks = sorted((key for key in nvan if ".NL_" in key), key=place)
    stripes = {key: nvan[key] for key in [key for key in nvan if ".NL_" not in key] + blocks}
    for options in ({}, {"family": "stenvan"}):
        with pytest.raises(ValueError, match=r"STE_NVAN\.pth, with attention between stripes"):
            from_checkpoint(stripes, **options)
    sorted_copy = OrderedDict(sorted(nvan.items()))
    sorted_copy._metadata = {"features.backbone.NL_2.0.pool": {"version": 1}}
    with pytest.raises(ValueError, match=r"STE_NVAN\.pth"):
        from_checkpoint(sorted_copy, family="stenvan")


@pytest.mark.parametrize(
    ("network", "sentence"),
    [("r3d_18", "video ResNet"), ("mc3_18", "video ResNet"), ("r2plus1d_18", "video ResNet"), ("s3d", "S3D"),
     ("mvit_v1_b", "a transformer"), ("swin3d_t", "a transformer")],
)  # fmt: skip
def test_video_networks_of_torchvision_are_named(network, sentence):
    import torchvision

    with torch.device("meta"):
        tensors = getattr(torchvision.models.video, network)().state_dict()
    with pytest.raises(ValueError, match=sentence) as refusal:
        from_checkpoint(tensors)
    assert "deep stem" not in str(refusal.value)


def test_a_family_is_registered_from_outside(monkeypatch):
    monkeypatch.setattr(table, "FAMILIES", dict(table.FAMILIES))
    rules = ((r"toy\.(.+)", r"\1"),)
    toy = Family(name="toy", about="a toy", required_keys=(r"toy\.conv1\.weight",), rules=rules)
    register_family(toy)
    plain = without(PLAIN, "fc.weight", "fc.bias")
    model = from_checkpoint({f"toy.{key}": tensor for key, tensor in plain.items()})
    assert model.pretrained_cfg["family"] == "toy"
    with pytest.raises(ValueError, match="a name of its own, got 'toy'"):
        register_family(toy)


@pytest.mark.parametrize(
    ("architecture", "sentence"),
    [
        ("resnet50d", "deep stem"),
        ("seresnet50", "squeeze and excitation"),
        ("wide_resnet50_2", "wide and grouped"),
        ("resnext50_32x4d", "wide and grouped"),
        ("resnetv2_50", "no file has 'head.fc.weight'"),
        ("vgg11", "no ResNet"),
        ("vit_tiny_patch16_224", "a transformer"),
    ],
)
def test_other_architectures_are_named(architecture, sentence):
    import timm

    with torch.device("meta"):
        tensors = timm.create_model(architecture).state_dict()
    with pytest.raises(ValueError, match=sentence) as refusal:
        from_checkpoint(tensors)
    assert one_sentence(str(refusal.value))


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ("backbone.layer1.0.bn1.IN.weight", "IBN"),
        ("s1.pathway1_stem.conv.weight", "two pathways"),
        ("layer2.0.conv2.APM.semantic_mapping.weight", "appearance-preserving"),
    ],
)
def test_relatives_of_the_families_are_named(extra, sentence):
    name = {"b": "fastreid_bot_r50", "s": "pyslowfast_i3d_r50", "l": "ap3d_c2d_nl_r50"}[extra[0]]
    with pytest.raises(ValueError, match=sentence):
        from_checkpoint({**fixture(name)[0], extra: torch.zeros(4)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", [PLAIN, "fastreid_agw_r50", "pyslowfast_i3d_nln_r50"])
def test_other_kinds_of_number_load_as_float32_and_are_said(name, dtype):
    tensors = {key: t.to(dtype) if t.is_floating_point() else t for key, t in fixture(name)[0].items()}
    model = from_checkpoint(tensors)
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {torch.float32}
    assert model.pretrained_cfg["dtype"] == str(dtype).removeprefix("torch.")
    exact = from_checkpoint(fixture(name)[0])
    torch.testing.assert_close(model.conv1.weight, exact.conv1.weight, rtol=1e-2, atol=1e-3)


def test_the_state_dict_that_was_given_is_left_alone():
    tensors = {key: tensor.clone() for key, tensor in fixture(PLAIN)[0].items()}
    model = from_checkpoint(tensors, num_classes=17)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    assert list(tensors) == list(fixture(PLAIN)[0])
    assert all(torch.equal(tensor, fixture(PLAIN)[0][key]) for key, tensor in tensors.items())


def test_old_files_lack_a_count_of_batches():
    model = from_checkpoint(without(PLAIN, "num_batches_tracked"), num_classes=17)
    assert model.bn1.num_batches_tracked == 0


def test_the_optimizer_and_wrappings_are_dropped():
    tensors = {f"module.{key}": tensor for key, tensor in fixture(PLAIN)[0].items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    for slot in ("state_dict", "model", "model_state", "net"):
        wrapped = {"epoch": 3, "optimizer": optimizer, slot: tensors, "best": torch.tensor(0.5)}
        assert from_checkpoint(wrapped, num_classes=17).new_tensors == ()


@pytest.mark.parametrize(
    ("asked", "error", "sentence"),
    [
        ({"depth": 50}, TypeError, "unexpected keyword argument 'depth'"),
        ({"num_classes": -1}, ValueError, "num_classes must be at least 0, got -1"),
        ({"layout": "flat"}, ValueError, "layout must be one of"),
        ({"block_counts": (1, 1, 1, 1)}, ValueError, r"block_counts must be \(3, 4, 6, 3\), as in the file"),
        ({"shortcut": "pad"}, ValueError, "shortcut must be 'conv', as in the file"),
        ({"time_kernel": [[3] * 3, [3] * 4, [3] * 6, [3] * 3]}, ValueError, "stem_time_kernel must be given"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(asked, error, sentence):
    with pytest.raises(error, match=sentence):
        from_checkpoint(published(PLAIN), **asked)


def test_every_keyword_of_the_network_may_be_overridden():
    published_network = ResNet3d(base_width=6).options.flat()
    changed = {key: value for key, value in published_network.items() if key not in ("num_classes", "stem_time_kernel")}
    assert from_checkpoint(published(PLAIN), **{**changed, "non_local": None, "layout": None, "time_kernel": None})


def test_an_override_equal_to_the_file_is_no_fault():
    assert from_checkpoint(published(PLAIN), block_counts=[3, 4, 6, 3], base_width=6, last_stride=1).new_tensors


def test_a_network_is_not_its_state_dict():
    with pytest.raises(TypeError, match=r"got Linear; pass its state_dict\(\)"):
        from_checkpoint(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="path or a state dict, got int"):
        from_checkpoint(3)
