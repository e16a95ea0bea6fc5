"""Into other layouts: exactly, or refused, or approximated and measured."""

import pytest
import torch

from nl3d import from_checkpoint
from nl3d.convert.layout import separate_kernel
from nl3d.models.resnet3d import ResNet3d
from tests.convert.foreign import fixture, published, scramble, to_flat

NL = {"layer2": (1, 3), "layer3": (1, 3, 5)}


def features(model, clips):
    with torch.no_grad():
        return model.forward_features(clips)


@pytest.mark.parametrize("name", ["torchvision_resnet50", "fastreid_agw_r50", "reid_strong_baseline_r50"])
def test_image_networks_run_frame_by_frame(name):
    model = from_checkpoint(published(name))
    frames = torch.randn(1, 3, 4, 64, 32)
    frames[:, :, 2:3] = fixture(name)[1]
    together = features(model, frames)
    alone = torch.cat([features(model, frame) for frame in frames.split(1, dim=2)], dim=2)
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5 * alone.abs().max().item())
    wanted = fixture(name)[2]["features"]
    torch.testing.assert_close(together[:, :, 2], wanted, rtol=0, atol=2e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("layout", ["separable", "i3d", "full"])
@pytest.mark.parametrize("name", ["torchvision_resnet50", "fastreid_agw_r50", "ap3d_c2d_nl_r50"])
def test_still_clips_give_the_image_networks_map_in_every_layout(name, layout):
    model = from_checkpoint(published(name), layout=layout, time_kernel=3, time_padding="replicate")
    spans = [module.kernel_size[0] for module in model.modules() if isinstance(module, torch.nn.Conv3d)]
    assert spans[0] == (1 if "ap3d" in name else 5 if layout == "i3d" else 3)  # a 3D file keeps its stem
    assert max(spans[1:]) == 3
    still = fixture(name)[1][:, :, :1].expand(-1, -1, 5, -1, -1)
    wanted = features(from_checkpoint(published(name)), still)
    torch.testing.assert_close(features(model, still), wanted, rtol=0, atol=2e-5 * wanted.abs().max().item())
    moving = torch.randn_like(still)
    assert not torch.allclose(features(model, moving), features(from_checkpoint(published(name)), moving), atol=1e-2)


def test_layout_alone_inflates_and_neither_keeps_the_frames_apart():
    kernels = {}
    for asked in ({}, {"layout": "i3d"}, {"time_kernel": 5}, {"layout": "full", "time_kernel": 1}):
        model = from_checkpoint(published("torchvision_resnet50"), **asked)
        kernels[str(asked)] = [
            module.kernel_size[0] for name, module in model.named_modules()
            if isinstance(module, torch.nn.Conv3d) and name.startswith(("conv1", "layer1.0"))
        ]  # fmt: skip
    assert [max(spans) for spans in kernels.values()] == [1, 5, 5, 1]  # the i3d stem spans 5
    assert sorted(kernels["{'layout': 'i3d'}"]) == [1, 1, 1, 3, 5]
    assert "temporal" in str(list(from_checkpoint(published("torchvision_resnet50"), time_kernel=3).state_dict()))


@pytest.mark.parametrize("name", ["torchvision_resnet50", "pyslowfast_i3d_r50", "hara_r3d50", "fastreid_agw_r50"])
def test_new_non_local_blocks_change_nothing_at_first(name):
    own = {"layer2": (2, 3), "layer3": (3, 4, 5)} if "agw" in name else {}
    places = {stage: sorted({*numbers, *own.get(stage, ())}) for stage, numbers in {**NL, "layer4": (0,)}.items()}
    plain, model = from_checkpoint(published(name)), from_checkpoint(published(name), non_local=places)
    clips = fixture(name)[1]
    assert torch.equal(features(model, clips), features(plain, clips))
    added = {key.split(".")[1] for key in model.new_tensors if key.startswith("layer2")}
    assert added == {f"non_local{number}" for number in places["layer2"] if number not in own.get("layer2", ())}
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_places_of_the_files_own_blocks_cannot_be_left_out():
    with pytest.raises(ValueError, match="non_local must hold the places of the file's own blocks"):
        from_checkpoint(published("pyslowfast_i3d_nln_r50"), non_local={"layer2": (1, 3)})


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("pyslowfast_i3d_r50", "separable"),
        ("pyslowfast_i3d_r50", "full"),
        ("hara_r3d50", "i3d"),
        ("hara_r3d50", "separable"),
    ],
)
def test_layouts_that_cannot_hold_the_kernels_are_refused(name, layout):
    with pytest.raises(ValueError, match=r"^layout must be '(i3d|full)'.*cannot hold them exactly"):
        from_checkpoint(published(name), layout=layout, approximate=name != "hara_r3d50")


def test_a_file_keeps_its_temporal_kernels():
    assert from_checkpoint(published("hara_r3d50"), time_kernel=3, layout="full").new_tensors
    with pytest.raises(ValueError, match="time_kernel must be that of the file"):
        from_checkpoint(published("hara_r3d50"), time_kernel=5)
    with pytest.raises(ValueError, match="stem_time_kernel must be that of the file"):
        from_checkpoint(published("hara_r3d50"), stem_time_kernel=5)


def test_kernels_of_one_frame_in_a_3d_file_can_be_inflated():
    kernels = [[3] * 3, [3] * 4, [3] * 6, [3] * 3]
    model = from_checkpoint(published("pytorchvideo_slow_r50"), time_kernel=kernels, time_padding="replicate")
    still = torch.randn(1, 3, 1, 64, 32).expand(-1, -1, 4, -1, -1)
    wanted = features(from_checkpoint(published("pytorchvideo_slow_r50"), time_padding="replicate"), still)
    torch.testing.assert_close(features(model, still), wanted, rtol=0, atol=2e-5 * wanted.abs().max().item())


def test_full_kernels_of_low_rank_are_taken_apart_exactly():
    network = {"layout": "full", "stem_time_kernel": 7, "base_width": 8, "block_counts": (1, 1, 1, 1), "head": "linear"}
    network |= {"stem_pool_kernel": 3, "stem_pool_stride": 2, "stem_pool_padding": 1, "time_strides": (1, 2, 2, 2)}
    clips = torch.randn(2, 3, 16, 64, 32)
    ours = ResNet3d(**network, num_classes=5)
    for name, module in ours.named_modules():
        if name.endswith("conv2"):  # composed of a temporal and a spatial kernel, as only a separable one can be
            temporal = torch.randn(module.in_channels, module.in_channels, 3) / 3
            spatial = torch.randn(module.out_channels, module.in_channels, 3, 3) / 9
            with torch.no_grad():
                module.weight.copy_(torch.einsum("omhw,mit->oithw", spatial, temporal))
    scramble(ours, clips)
    model = from_checkpoint(to_flat(ours.state_dict()), num_classes=5, layout="separable", approximate=True)
    assert set(model.approximation) == {f"layer{stage}.0.conv2" for stage in range(1, 5)}
    assert all(kept == pytest.approx(1, abs=1e-6) for kept in model.approximation.values())
    with torch.no_grad():
        torch.testing.assert_close(model(clips).logits, ours(clips).logits, rtol=1e-3, atol=1e-4)


def test_other_full_kernels_keep_the_share_that_is_said():
    model = from_checkpoint(published("hara_r3d50"), layout="separable", approximate=True)
    full = fixture("hara_r3d50")[0]
    for name, kept in model.approximation.items():
        block = model.get_submodule(name)
        composed = torch.einsum(
            "omhw,mit->oithw", block.spatial.weight[:, :, 0].double(), block.temporal.weight[..., 0, 0].double()
        )
        kernel = full[f"{name}.weight"].double()
        lost = ((kernel - composed) ** 2).sum() / (kernel**2).sum()
        assert 0.3 < kept < 0.99
        assert 1 - lost.item() == pytest.approx(kept, abs=1e-5)
    assert from_checkpoint(published("hara_r3d50")).approximation == {}


def test_the_approximation_is_the_best_there_is():
    kernel = torch.randn(6, 4, 3, 3, 3, dtype=torch.float64)
    _, _, kept = separate_kernel(kernel)
    values = torch.linalg.svdvals(kernel.permute(0, 3, 4, 1, 2).reshape(54, 12))
    assert kept == pytest.approx(((values[:4] ** 2).sum() / (values**2).sum()).item())
    assert separate_kernel(torch.zeros(2, 2, 3, 3, 3))[2] == 1.0


@pytest.mark.parametrize("layout", ["separable", "i3d", "full"])
def test_our_own_files_come_back(layout, tmp_path):
    import json

    from safetensors.torch import save_file

    network = {"layout": layout, "base_width": 4, "block_counts": (1, 2, 1, 1), "non_local": {"layer2": (1,)},
               "last_stride": 1, "num_classes": 3, "embedding_dim": 8}  # fmt: skip
    clips = torch.randn(2, 3, 4, 64, 32)
    ours = scramble(ResNet3d(**network), clips)
    config = json.dumps(ours.hub_config())
    save_file(ours.state_dict(), tmp_path / "ours.safetensors", metadata={"config": config})
    for source, asked in ((tmp_path / "ours.safetensors", {}), (ours.state_dict(), {"last_stride": 1})):
        back = from_checkpoint(source, num_classes=3, **asked)
        assert back.pretrained_cfg["family"] == "nl3d"
        with torch.no_grad():
            for got, wanted in zip(back(clips), ours(clips), strict=True):
                torch.testing.assert_close(got, wanted)
    assert from_checkpoint(ours.state_dict()).embedding_dim == 8
