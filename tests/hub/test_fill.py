import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nl3d.hub.fill import fill_model, new_modules, read_safetensors
from nl3d.models.resnet3d import ResNet3d

TINY = {"block_counts": (1, 1, 1, 1), "base_width": 4, "embedding_dim": 8, "non_local": {"layer2": (0,)}}


def tiny(**options):
    return ResNet3d(**{**TINY, **options})


def on_meta(**options):
    with torch.device("meta"):
        return tiny(**options)


def trained(**options):
    """A network whose every tensor has left its starting value."""
    model = tiny(**options)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.fill_(7)
    return model


def test_fills_every_tensor_and_computes_the_same():
    source, model = trained(num_classes=3).eval(), on_meta(num_classes=3)
    fill_model(model, source.state_dict())
    clips = torch.rand(2, 3, 2, 32, 16)
    torch.testing.assert_close(model.eval()(clips).logits, source(clips).logits)
    assert model.new_tensors == ()
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


def test_tensors_become_the_parameters_without_a_copy():
    tensors = trained().state_dict()
    model = on_meta()
    fill_model(model, tensors)
    assert all(model.state_dict()[key].data_ptr() == tensor.data_ptr() for key, tensor in tensors.items())


def test_new_modules_start_as_they_start_alone():
    tensors = {key: t for key, t in trained(non_local=None).state_dict().items() if not key.startswith("head.")}
    model = on_meta(num_classes=3, pool="gem")
    torch.manual_seed(3)
    fill_model(model, tensors, new=new_modules(model))
    assert {key.split(".")[0] for key in model.new_tensors} == {"head", "layer2"}
    assert {key.split(".")[1] for key in model.new_tensors if key.startswith("layer2")} == {"non_local0"}
    assert model.head.pool.p.item() == 3.0
    assert (model.layer2.non_local0.bn.weight == 0).all()
    assert 0 < model.head.classifier.weight.abs().max() < 0.01  # N(0, 0.001), as the head draws it
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert all(parameter.requires_grad for parameter in model.parameters())
    model(torch.rand(2, 3, 2, 32, 16)).logits.sum().backward()


def test_a_classifier_alone_may_be_new():
    tensors = {key: t for key, t in trained(num_classes=5).state_dict().items() if "classifier" not in key}
    model = on_meta(num_classes=3)
    fill_model(model, tensors, new=["head.classifier"])
    assert model.new_tensors == ("head.classifier.weight", "head.classifier.bias")
    assert (model.head.fc.weight >= 0.5).all()


def test_new_modules_of_a_real_model_keep_their_values():
    model = tiny()
    before = model.layer2.non_local0.g.weight.clone()
    tensors = {key: tensor for key, tensor in trained().state_dict().items() if "non_local" not in key}
    fill_model(model, tensors, new=["layer2.non_local0"])
    assert torch.equal(model.layer2.non_local0.g.weight, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layer1.0.conv1.weight"), r"missing: layer1\.0\.conv1\.weight \(4, 4, 1, 1, 1\)"),
        (lambda t: t.update(extra=torch.zeros(2, 3)), r"not used: extra \(2, 3\)"),
        (lambda t: t.update({"bn1.bias": torch.zeros(5)}), r"of another shape: bn1\.bias \(5,\) for \(4,\)"),
        (lambda t: t.update({"bn1.bias": torch.zeros(4).int()}), r"of another kind: bn1\.bias integer for float"),
        (lambda t: t.pop("layer2.non_local0.g.weight"), r"missing: layer2\.non_local0\.g\.weight"),  # half a module
        (lambda t: t.pop("head.fc.bias"), r"missing: head\.fc\.bias"),
        (lambda t: [t.pop(key) for key in list(t)[:12]], r"and 6 more"),
    ],
)
def test_anything_else_is_refused_and_changes_nothing(change, message):
    tensors = dict(trained(num_classes=3).state_dict())
    change(tensors)
    model = tiny(num_classes=3)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message) as refusal:
        fill_model(model, tensors, new=new_modules(model))
    assert "\n" not in str(refusal.value)
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in before.items())


def test_missing_counters_of_old_files_are_zero():
    tensors = {key: t for key, t in trained().state_dict().items() if "num_batches_tracked" not in key}
    model = on_meta()
    fill_model(model, tensors)
    assert model.bn1.num_batches_tracked.item() == 0
    assert model.new_tensors == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_floats_take_the_model_s_dtype(dtype):
    tensors = {key: t.to(dtype) if t.is_floating_point() else t for key, t in trained().state_dict().items()}
    model = on_meta()
    fill_model(model, tensors)
    assert model.conv1.weight.dtype is torch.float32
    half = on_meta().to(torch.bfloat16)
    fill_model(half, tensors)
    assert half.conv1.weight.dtype is torch.bfloat16
    assert half.bn1.num_batches_tracked.dtype is torch.int64


def test_no_parameter_shares_memory_with_another():
    shared = torch.rand(4)
    before = shared.clone()
    tensors = {**trained().state_dict(), "bn1.weight": shared, "bn1.bias": shared}
    tensors["bn1.running_mean"] = torch.rand(1).expand(4)
    model = on_meta()
    fill_model(model, tensors)
    with torch.no_grad():
        model.bn1.bias.zero_()
        model.bn1.running_mean[0] = 9
    assert torch.equal(model.bn1.weight, before)
    assert (model.bn1.running_mean == 9).sum() == 1


def test_a_parameter_of_another_network_is_not_taken_over():
    source = trained()
    source.requires_grad_(False)
    model = on_meta()
    fill_model(model, dict(source.named_parameters()) | dict(source.named_buffers()))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in source.parameters())


@pytest.mark.parametrize("copy", [False, True])
def test_training_on_a_mapped_file_leaves_the_file(tmp_path, copy):
    path = tmp_path / "model.safetensors"
    save_file(trained().state_dict(), path)
    before = path.read_bytes()
    model = on_meta()
    fill_model(model, read_safetensors(path, copy=copy))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    start = model.conv1.weight.detach().clone()
    model(torch.rand(2, 3, 2, 32, 16)).features.square().sum().backward()
    optimiser.step()
    assert not torch.equal(model.conv1.weight, start)
    assert path.read_bytes() == before
    assert torch.equal(load_file(path)["conv1.weight"], start)


def test_broken_and_missing_files(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="must name an existing file"):
        read_safetensors(path)
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"must be a whole safetensors file, got '.*model\.safetensors'"):
        read_safetensors(path)


def test_aggregations_of_image_networks_may_be_new():
    class Framewise(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Linear(2, 2)
            self.aggregate = nn.LSTMCell(2, 2)

    with torch.device("meta"):
        model = Framewise()
    fill_model(model, {"backbone.weight": torch.ones(2, 2), "backbone.bias": torch.ones(2)}, new=new_modules(model))
    assert all(key.startswith("aggregate.") for key in model.new_tensors)
    assert len(model.new_tensors) == 4
