"""Networks that no carried checkpoint shows: other depths, widths, modes and eras, under each project's names.

Each is one of ours, written under the foreign names by means of its own, and must come back as the same network.
"""

import pytest
import torch

from nl3d import NonLocalBlock3d, from_checkpoint
from nl3d.models.resnet3d import ResNet3d
from tests.convert.foreign import (
    fixture,
    published,
    scramble,
    to_blobs,
    to_flat,
    to_mmaction2,
    to_pyslowfast,
    to_pytorchvideo,
    to_tushar,
    write_python2_pickle,
)

SLOW = [[1] * 3, [1] * 4, [3] * 6, [3] * 3]
HARA = {
    "layout": "full",
    "stem_time_kernel": 7,
    "stem_pool_kernel": 3,
    "stem_pool_stride": 2,
    "stem_pool_padding": 1,
    "time_strides": (1, 2, 2, 2),
}
NL = {"layer2": (1, 3), "layer3": (1, 3, 5)}
FAIR = {"layout": "i3d", "layer1_time_pool": 2, "non_local_scale": True, "non_local_subsample": "before"}
NONLOCAL_NET = {**FAIR, "stem_stride": 2, "stem_pool_kernel": (2, 3, 3), "stem_pool_stride": 2, "stem_pool_padding": 0}
MMACTION2 = {"layout": "i3d", "layer1_time_pool": 2, "stem_stride": 2, "stem_pool_stride": 2}


def same_network(network, rename, *, frames=16, family=None, extras=None, wanted_family=None, **asked):
    """Build ours, write it under foreign names, read it back and compare every output."""
    clips = torch.randn(2, 3, frames, 64, 32)
    ours = scramble(ResNet3d(base_width=4, head="linear", num_classes=6, **network), clips)
    file = rename(ours.state_dict())
    file = {"model_state": file, **extras} if extras else file
    back = from_checkpoint(file, num_classes=6, family=family, **asked)
    with torch.no_grad():
        theirs, got = ours(clips), back(clips)
    for ours_out, back_out in ((theirs.features, got.features), (theirs.logits, got.logits)):
        atol = 1e-3 * ours_out.abs().max().item()  # a bias moved into a mean is rounded anew; 101 layers magnify it
        torch.testing.assert_close(back_out, ours_out, rtol=0, atol=atol)
    assert theirs.features.std() > 1e-3  # or nothing was compared
    if wanted_family is not None:
        assert back.pretrained_cfg["family"] == wanted_family
    return back


@pytest.mark.parametrize("shortcut", ["conv", "pad"])
@pytest.mark.parametrize("counts", [(2, 2, 2, 2), (3, 4, 6, 3)])
def test_hara_with_basic_blocks(counts, shortcut):
    network = {**HARA, "block": "basic", "block_counts": counts, "shortcut": shortcut}
    same_network(network, to_flat, wanted_family="hara_r3d")


def test_hara_with_101_layers():
    same_network({**HARA, "block_counts": (3, 4, 23, 3)}, to_flat, wanted_family="hara_r3d")


def test_hara_with_options_that_no_tensor_tells():
    network = {**HARA, "stem_stride": (2, 2, 2), "stem_pool_kernel": 1, "stem_pool_stride": 1, "stem_pool_padding": 0}
    options = {"stem_pool_kernel": 1, "stem_pool_stride": 1, "stem_pool_padding": 0, "stem_stride": (2, 2, 2)}
    same_network(network, to_flat, **options)


@pytest.mark.parametrize("time_pool", [False, True])
def test_pytorchvideo_with_101_layers(time_pool):
    kernels = [[1] * 3, [1] * 4, [3] * 23, [3] * 3]
    network = {"layout": "i3d", "block_counts": (3, 4, 23, 3), "time_kernel": kernels, "stem_time_kernel": 1}
    same_network(
        {**network, "layer1_time_pool": 1 + time_pool},
        lambda state_dict: to_pytorchvideo(state_dict, time_pool=time_pool),
        wanted_family="pytorchvideo",
    )


def test_copies_of_pytorchvideo_files_in_another_zoo():
    def rename(state_dict):
        return {f"model.{key}": tensor for key, tensor in to_pytorchvideo(state_dict, time_pool=True).items()}

    same_network({"layout": "i3d", "layer1_time_pool": 2}, rename, wanted_family="pytorchvideo")


def test_pyslowfast_slow_with_non_local_blocks_is_a_dot_product():
    network = {"layout": "i3d", "time_kernel": SLOW, "stem_time_kernel": 1, "non_local": NL}
    network |= {"non_local_mode": "dot_product", "non_local_subsample": "before"}
    same_network(network, to_pyslowfast, frames=8, wanted_family="pyslowfast")


@pytest.mark.parametrize("counts", [(3, 4, 6, 3), (3, 4, 23, 3)])
def test_pyslowfast_slow_pickles_need_no_telling(counts, tmp_path):
    kernels = [[1] * counts[0], [1] * counts[1], [3] * counts[2], [3] * counts[3]]
    network = {"layout": "i3d", "block_counts": counts, "time_kernel": kernels, "stem_time_kernel": 1}

    def rename(state_dict):
        write_python2_pickle(to_blobs(state_dict), tmp_path / "slow.pkl")
        return tmp_path / "slow.pkl"

    same_network(network, rename, frames=8, wanted_family="pyslowfast")


def test_pyslowfast_with_basic_blocks():
    network = {**FAIR, "block": "basic", "block_counts": (2, 2, 2, 2)}
    same_network(network, to_pyslowfast, frames=8, wanted_family="pyslowfast")


def test_pyslowfast_goes_by_the_configuration_in_the_file():
    cfg = (
        "MODEL: {ARCH: slow_i3d}\n"
        "NONLOCAL: {LOCATION: [[[]], [[1, 3]], [[1, 3, 5]], [[]]], GROUP: [[1], [1], [1], [1]], "
        "INSTANTIATION: dot_product, POOL: [[[2, 2, 2]], [[1, 1, 1]], [[1, 1, 1]], [[2, 2, 2]]]}\n"
        "RESNET: {SPATIAL_STRIDES: [[1], [2], [2], [1]]}\n"
        "DATA: {NUM_FRAMES: 4, SAMPLING_RATE: 16, MEAN: [0.4, 0.5, 0.6], TRAIN_CROP_SIZE: 112}\n"
    )
    network = {"layout": "i3d", "non_local": NL, "non_local_mode": "dot_product", "last_stride": 1}
    back = same_network(network, to_pyslowfast, frames=4, extras={"cfg": cfg})
    assert back.pretrained_cfg["mean"] == (0.4, 0.5, 0.6)
    assert [back.pretrained_cfg[key] for key in ("num_frames", "frame_step", "input_size")] == [4, 16, (3, 112, 112)]


@pytest.mark.parametrize("pools", [((1, 2, 2), (1, 1, 1)), ((1, 1, 1), (1, 2, 2))])
def test_pyslowfast_pools_may_differ_between_stages(pools, tmp_path):
    listed = [[[2, 2, 2]], *([list(pool)] for pool in pools), [[2, 2, 2]]]
    cfg = f"NONLOCAL: {{LOCATION: [[[]], [[1, 3]], [[1, 3, 5]], [[]]], POOL: {listed}, INSTANTIATION: softmax}}"
    subsample = {f"layer{n}": "before" if pool[1] == 2 else None for n, pool in enumerate(pools, 2)}
    network = {**FAIR, "non_local": NL, "non_local_subsample": subsample}
    back = same_network(network, to_pyslowfast, extras={"cfg": cfg})
    assert back.layer2.non_local1.subsample == subsample["layer2"] != back.layer3.non_local1.subsample
    back.save_pretrained(tmp_path)
    assert ResNet3d.from_pretrained(tmp_path).options.non_local.subsample == subsample


@pytest.mark.parametrize(
    "cfg",
    [
        "RESNET: {STRIDE_1X1: true}",
        "NONLOCAL: {GROUP: [[1], [4], [1], [1]]}",
        "RESNET: {SPATIAL_STRIDES: [[1], [1], [2], [2]]}",
        "RESNET: {SPATIAL_DILATIONS: [[1], [1], [1], [2]]}",
        "NONLOCAL: {LOCATION: [[[]], [[1]]], POOL: [[], [[2, 2, 2]]]}",
    ],
)
def test_pyslowfast_configurations_of_other_networks_are_refused(cfg):
    with pytest.raises(ValueError, match=r"^cfg must"):
        same_network({**FAIR, "non_local": NL}, to_pyslowfast, extras={"cfg": cfg})


def test_pyslowfast_configuration_that_is_no_data_is_refused():
    with pytest.raises(ValueError, match="cfg must be plain YAML"):
        same_network(FAIR, to_pyslowfast, extras={"cfg": "!!python/object/apply:os.system [echo]"})


@pytest.mark.parametrize("frozen", [False, True])
def test_nonlocal_net_under_pytorch_names(frozen):
    def rename(state_dict):
        renamed = {key: tensor for key, tensor in to_tushar(state_dict).items() if "num_batches" not in key}
        if frozen:
            norm = ("bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight", "nl.bn.weight")
            renamed = {key.replace("weight", "scale") if key.endswith(norm) else key: t for key, t in renamed.items()}
        return renamed

    same_network({**NONLOCAL_NET, "non_local": NL}, rename, wanted_family="tushar_i3res50")


def test_nonlocal_net_with_101_layers_needs_no_telling():
    places = {"layer2": (1, 3), "layer3": (6, 13, 20)}
    network = {**NONLOCAL_NET, "block_counts": (3, 4, 23, 3), "non_local": places}
    same_network(network, to_blobs, wanted_family="tushar_i3res50")


def test_pyslowfast_with_101_layers_needs_no_telling():
    network = {**FAIR, "block_counts": (3, 4, 23, 3), "non_local": NL}
    same_network(network, to_blobs, frames=8, wanted_family="pyslowfast")


def test_nonlocal_net_of_8_frames_by_what_no_tensor_tells():
    network = {**FAIR, "stem_pool_padding": 0, "non_local": NL}
    options = {"stem_stride": (1, 2, 2), "stem_pool_kernel": (1, 3, 3), "stem_pool_stride": (1, 2, 2)}
    same_network(network, to_blobs, frames=8, family="tushar_i3res50", **options)


def test_norms_folded_into_scale_and_shift_attend_in_groups_of_four_frames():
    clips = torch.randn(2, 3, 64, 64, 32)  # 8 frames in layer2
    network = {**NONLOCAL_NET, "non_local": NL, "non_local_time_window": {"layer2": 4}}
    ours = scramble(ResNet3d(base_width=4, head="linear", num_classes=6, **network), clips)
    for module in ours.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            gain = module.weight / (module.running_var + module.eps).sqrt()
            with torch.no_grad():
                module.bias -= module.running_mean * gain
                module.weight.copy_(gain)
            module.running_mean.zero_()
            module.running_var.fill_(1.0)
            module.eps = 0.0
    back = from_checkpoint(to_blobs(ours.state_dict(), affine=True), num_classes=6)
    assert back.pretrained_cfg["family"] == "tushar_i3res50"
    assert back.layer2.non_local1.time_window == 4
    assert back.layer3.non_local1.time_window is None
    with torch.no_grad():
        torch.testing.assert_close(back(clips).logits, ours(clips).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("mode", ["embedded_gaussian", "gaussian", "dot_product", "concatenation"])
def test_mmaction2_in_each_mode(mode, pooled):
    network = {**MMACTION2, "non_local": NL, "non_local_mode": mode, "non_local_subsample": "after" if pooled else None}
    asked = {"non_local_mode": mode} if mode == "dot_product" else {}  # its tensors are those of embedded_gaussian
    same_network(network, lambda state_dict: to_mmaction2(state_dict, pooled=pooled), **asked)


def test_mmaction2_heavy_strides_no_time_in_the_stem():
    kernels = [[3] * 3, [3] * 4, [3] * 6, [3] * 3]
    network = {"layout": "i3d", "time_kernel": kernels, "stem_time_kernel": 5, "layer1_time_pool": 2}
    same_network(network, lambda state_dict: to_mmaction2(state_dict, pooled=True), wanted_family="mmaction2_i3d")


def test_mmaction2_slow_only_strides_no_time_at_all():
    network = {"layout": "i3d", "time_kernel": SLOW, "stem_time_kernel": 1}
    same_network(network, lambda state_dict: to_mmaction2(state_dict, pooled=True), wanted_family="mmaction2_i3d")


def test_fast_reid_of_today_pools_the_stem_by_another_rule():
    theirs = {}
    for key, tensor in published("fastreid_agw_r50")["model"].items():
        key = key.replace("heads.bnneck", "heads.bottleneck.0").replace("heads.classifier.weight", "heads.weight")
        if key != "heads.pool_layer.p" and not key.startswith("pixel"):
            theirs[key] = tensor
    model = from_checkpoint(theirs, num_classes=17)
    assert (model.maxpool.padding, model.maxpool.ceil_mode) == ((0, 0, 0), True)
    assert model.head.pool.p.item() == 3.0
    assert model.layer2.non_local2.time_window == 1
    image = torch.randn(1, 3, 64, 32)
    stem = torch.nn.functional.max_pool2d(
        model.relu(model.bn1(model.conv1(image.unsqueeze(2)))).squeeze(2), 3, 2, ceil_mode=True
    )
    torch.testing.assert_close(model.maxpool(model.relu(model.bn1(model.conv1(image.unsqueeze(2))))).squeeze(2), stem)


def test_fast_reid_of_the_months_with_wide_blocks():
    theirs = dict(published("fastreid_agw_r50")["model"])
    for key, tensor in list(theirs.items()):
        if ".NL_" in key and ".W.1." not in key:
            channels = 48 if "NL_2" in key else 96
            shape = [channels // 2 if size == 1 and axis < 2 else size for axis, size in enumerate(tensor.shape)]
            theirs[key] = torch.randn(shape) if not key.endswith("W.0.bias") else tensor
    assert from_checkpoint(theirs).layer3.non_local4.inner_channels == 48


def test_torchreid_with_a_bottleneck_ends_it_in_a_relu():
    backbone = {key: tensor for key, tensor in fixture("torchreid_resnet50")[0].items() if "classifier" not in key}
    linear, norm = torch.nn.Linear(192, 10), torch.nn.BatchNorm1d(10)
    norm.running_mean.normal_()
    theirs = {**backbone, **{f"module.fc.0.{k}": v for k, v in linear.state_dict().items()},
              **{f"module.fc.1.{k}": v for k, v in norm.state_dict().items()},
              "module.classifier.weight": torch.randn(4, 10), "module.classifier.bias": torch.randn(4)}  # fmt: skip
    theirs = {f"module.{key.removeprefix('module.')}": tensor for key, tensor in theirs.items()}
    model = from_checkpoint(theirs, num_classes=4)
    with torch.no_grad():
        out = model(torch.randn(2, 3, 1, 64, 32))
        wanted = norm.eval()(linear(out.features)).relu()
    torch.testing.assert_close(out.embedding, wanted)
    torch.testing.assert_close(
        out.logits, wanted @ theirs["module.classifier.weight"].T + theirs["module.classifier.bias"]
    )
    assert model.layer4.get_submodule("0").conv2.stride == (1, 1, 1)


def test_ap3d_with_temporal_kernels_and_unpooled_blocks():
    theirs = {}
    for key, tensor in fixture("ap3d_c2d_nl_r50")[0].items():
        key = key.replace(".g.0.", ".g.").replace(".phi.0.", ".phi.")
        if key == "layer2.0.conv2.weight":
            key, tensor = "layer2.0.conv2.conv3d.weight", torch.cat([tensor, tensor, tensor], dim=2)
        theirs[key] = tensor
    model = from_checkpoint(theirs)
    block = model.layer2.get_submodule("0")
    assert (block.conv2.kernel_size, block.conv1.kernel_size) == ((3, 3, 3), (1, 1, 1))
    assert model.layer2.non_local1.subsample is None
    assert model.new_tensors == ()


@pytest.mark.parametrize("depth", ["resnet18", "resnet34", "resnet101"])
def test_image_networks_of_other_depths(depth):
    import timm

    clips = torch.randn(2, 3, 1, 64, 32)
    image = scramble(timm.create_model(depth, num_classes=7), clips.squeeze(2))
    model = from_checkpoint(image.state_dict(), num_classes=7).double()
    clips = clips.double()
    with torch.no_grad():
        torch.testing.assert_close(model(clips).logits, image.double()(clips.squeeze(2)))


def test_a_bias_before_the_norm_of_a_block_goes_into_its_mean():
    conv, norm = torch.nn.Conv3d(8, 16, 1), torch.nn.BatchNorm3d(16).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    from nl3d.convert.architecture import fold_into_norms

    tensors = {f"layer2.non_local0.w_z.{key}": tensor for key, tensor in conv.state_dict().items()}
    tensors |= {f"layer2.non_local0.bn.{key}": tensor for key, tensor in norm.state_dict().items()}
    folded = fold_into_norms(tensors)
    block = NonLocalBlock3d(16)
    block.w_z.load_state_dict({"weight": folded["layer2.non_local0.w_z.weight"]})
    block.bn.load_state_dict({key.rpartition(".")[2]: value for key, value in folded.items() if ".bn." in key})
    clips = torch.randn(2, 8, 3, 4, 4)
    torch.testing.assert_close(block.eval().bn(block.w_z(clips)), norm(conv(clips)), rtol=1e-5, atol=1e-6)
