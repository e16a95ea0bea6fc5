"""FAIR's action classifiers: PySlowFast, and video-nonlocal-net in its own blobs and in Tushar-N's PyTorch names.

Both projects publish Caffe2 pickles of the same blob names and shapes for different networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]

from nl3d.convert.families.video import FLAT_BLOCK, KINETICS
from nl3d.convert.family import BLOCK_OUTPUT, Family, Rules, Settled, Tensors, has_kernel, holds, resnet_rules
from nl3d.convert.read import ForeignCheckpoint

_BLOB = r"res[2-5]_\d+_branch2a_w"
_STATISTICS = (("s", "weight"), ("b", "bias"), ("rm", "running_mean"), ("riv", "running_var"))  # riv is the variance

# res2 is layer1: the numbers differ by one, which no replacement string can say.
BLOB_RULES: Rules = (
    (r".*_momentum|lr|model_iter|.*_iter|gpu_\d+.*", None),
    (r"conv1_w", "conv1.weight"),
    *((rf"res_conv1_bn_{short}", rf"bn1.{name}") for short, name in _STATISTICS),
    *(
        rule
        for layer in range(1, 5)
        for rule in (
            *(
                (rf"res{layer + 1}_(\d+)_branch2{x}_w", rf"layer{layer}.\1.conv{n}.weight")
                for n, x in enumerate("abc", 1)
            ),
            *(
                (rf"res{layer + 1}_(\d+)_branch2{x}_bn_{short}", rf"layer{layer}.\1.bn{n}.{name}")
                for n, x in enumerate("abc", 1)
                for short, name in _STATISTICS
            ),
            (rf"res{layer + 1}_(\d+)_branch1_w", rf"layer{layer}.\1.downsample.0.weight"),
            *(
                (rf"res{layer + 1}_(\d+)_branch1_bn_{short}", rf"layer{layer}.\1.downsample.1.{name}")
                for short, name in _STATISTICS
            ),
            (rf"nonlocal_conv{layer + 1}_(\d+)_(theta|phi|g)_w", rf"layer{layer}.non_local\1.\2.weight"),
            (rf"nonlocal_conv{layer + 1}_(\d+)_(theta|phi|g)_b", rf"layer{layer}.non_local\1.\2.bias"),
            (rf"nonlocal_conv{layer + 1}_(\d+)_out_w", rf"layer{layer}.non_local\1.w_z.weight"),
            (rf"nonlocal_conv{layer + 1}_(\d+)_out_b", rf"layer{layer}.non_local\1.w_z.bias"),
            *(
                (rf"nonlocal_conv{layer + 1}_(\d+)_bn_{short}", rf"layer{layer}.non_local\1.bn.{name}")
                for short, name in _STATISTICS
            ),
        )
    ),
    (r"pred_w", "head.classifier.weight"),
    (r"pred_b", "head.classifier.bias"),
)

PYSLOWFAST_RULES: Rules = (
    (r"s1\.pathway0_stem\.conv\.weight", "conv1.weight"),
    (r"s1\.pathway0_stem\.bn\.(\w+)", r"bn1.\1"),
    *(
        rule
        for layer in range(1, 5)
        for rule in (
            *(
                (rf"s{layer + 1}\.pathway0_res(\d+)\.branch2\.{x}\.weight", rf"layer{layer}.\1.conv{n}.weight")
                for n, x in enumerate("abc", 1)
            ),
            *(
                (rf"s{layer + 1}\.pathway0_res(\d+)\.branch2\.{x}_bn\.(\w+)", rf"layer{layer}.\1.bn{n}.\2")
                for n, x in enumerate("abc", 1)
            ),
            (rf"s{layer + 1}\.pathway0_res(\d+)\.branch1\.weight", rf"layer{layer}.\1.downsample.0.weight"),
            (rf"s{layer + 1}\.pathway0_res(\d+)\.branch1_bn\.(\w+)", rf"layer{layer}.\1.downsample.1.\2"),
            (
                rf"s{layer + 1}\.pathway0_nonlocal(\d+)\.conv_(theta|phi|g)\.(\w+)",
                rf"layer{layer}.non_local\1.\2.\3",
            ),
            (rf"s{layer + 1}\.pathway0_nonlocal(\d+)\.conv_out\.(\w+)", rf"layer{layer}.non_local\1.w_z.\2"),
            (rf"s{layer + 1}\.pathway0_nonlocal(\d+)\.(?:bn|norm)\.(\w+)", rf"layer{layer}.non_local\1.bn.\2"),
        )
    ),
    (r"head\.projection\.(weight|bias)", r"head.classifier.\1"),
)

# The max-pool behind the first stage hangs on the architecture's name alone.
_TIME_POOL = {"2d": 1, "c2d": 2, "slow_c2d": 1, "i3d": 2, "slow_i3d": 1, "slow": 1}


def _blob_is_slow(tensors: Tensors) -> bool:
    """Only PySlowFast has Slow networks: time spanned in the last two stages and not before."""
    early = has_kernel(tensors, r"conv1_w", spatial=True) or has_kernel(tensors, r"res[23]_.*_w", spatial=False)
    return not early and has_kernel(tensors, r"res[45]_.*_w", spatial=False)


def _blob_is_deep(tensors: Tensors) -> bool:
    return "res4_22_branch2a_w" in tensors


def _may_be_pyslowfast(tensors: Tensors) -> bool:
    """Not where norms are folded, nor where blocks stand after 6, 13 and 20: that is video-nonlocal-net."""
    blobs = holds(tensors, _BLOB)
    return not (blobs and (not holds(tensors, r".*_rm") or holds(tensors, r"nonlocal_conv4_(?:6|13|20)_.*")))


def _may_be_nonlocal_net(tensors: Tensors) -> bool:
    """Not a Slow network, nor 101 layers with blocks after 1, 3 and 5: those are PySlowFast's."""
    if has_kernel(tensors, FLAT_BLOCK, spatial=True) or has_kernel(tensors, r"layer.*conv2\.weight", spatial=True):
        return False
    return not (_blob_is_slow(tensors) or (_blob_is_deep(tensors) and holds(tensors, r"nonlocal_conv4_[135]_.*")))


def _settle_pyslowfast(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settled:
    """Take what the training's configuration says, where the file has it; else what the published networks do."""
    slow = not has_kernel(tensors, r"(?:conv1|layer[12]\..*)\.weight", spatial=True) and not has_kernel(
        tensors, r"layer[12]\..*\.weight", spatial=False
    )
    slow = slow and has_kernel(tensors, r"layer[34]\..*\.weight", spatial=False)
    cfg = _configuration(checkpoint)
    model, blocks, resnet = (cfg.get(part) or {} for part in ("MODEL", "NONLOCAL", "RESNET"))
    network: dict[str, Any] = {"layer1_time_pool": _TIME_POOL.get(str(model.get("ARCH")), 1 if slow else 2)}
    softmax = blocks.get("INSTANTIATION", "dot_product" if slow or blocks else "softmax") == "softmax"
    network |= {"non_local_mode": "embedded_gaussian" if softmax else "dot_product"}
    network |= {"non_local_subsample": _subsample(blocks)}
    strides = [stride[0] for stride in resnet.get("SPATIAL_STRIDES", [[1], [2], [2], [2]])]
    if resnet.get("STRIDE_1X1") or strides[:3] != [1, 2, 2] or any(
        size[0] != 1 for size in (*resnet.get("SPATIAL_DILATIONS", []), *blocks.get("GROUP", []))
    ):  # fmt: skip
        raise ValueError(
            "cfg must leave STRIDE_1X1, SPATIAL_DILATIONS and NONLOCAL.GROUP off and stride layer2 and layer3 by 2, "
            "which are the networks known here, but the file's differs"
        )
    return {**network, "last_stride": strides[3]}, _clips_of(cfg.get("DATA") or {})


def _configuration(checkpoint: ForeignCheckpoint) -> Mapping[str, Any]:
    text = checkpoint.extras.get("cfg")
    if not isinstance(text, str):
        return {}
    try:
        cfg = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(
            "cfg must be plain YAML, but the file's is not; to go by the published networks, hand over its model_state"
        ) from None
    return cfg if isinstance(cfg, Mapping) else {}


def _subsample(blocks: Mapping[str, Any]) -> str | None:
    """Each block has a pool of its own; those of stages without blocks do not count."""
    pools = [
        tuple(pool)
        for places, stage in zip(blocks.get("LOCATION", []), blocks.get("POOL", []), strict=False)
        for pool in stage[: len(places)]
        if any(places)
    ]
    if set(pools) <= {(1, 2, 2)}:
        return "before"
    if set(pools) == {(1, 1, 1)}:
        return None
    raise ValueError(f"cfg must pool all non-local blocks by 1x2x2 or none, got {pools}")


def _clips_of(data: Mapping[str, Any]) -> dict[str, Any]:
    said = {"mean": data.get("MEAN"), "std": data.get("STD")}
    clips: dict[str, Any] = {key: tuple(value) for key, value in said.items() if value}
    if "TRAIN_CROP_SIZE" in data:
        clips["input_size"] = (3, data["TRAIN_CROP_SIZE"], data["TRAIN_CROP_SIZE"])
    for name, key in (("num_frames", "NUM_FRAMES"), ("frame_step", "SAMPLING_RATE")):
        if key in data:
            clips[name] = data[key]
    return clips


PYSLOWFAST = Family(
    name="pyslowfast",
    about="I3D, C2D and Slow with and without non-local blocks, .pyth and Caffe2 .pkl",
    url="https://github.com/facebookresearch/SlowFast",
    license="Apache-2.0",
    marks=(rf"s[2-5]\.pathway0_res\d+\.branch2\.a\.weight|{_BLOB}",),
    unlike=(r".*pathway1.*", r"t_.*"),
    rank=5,
    may_be=_may_be_pyslowfast,
    rules=(*PYSLOWFAST_RULES, *BLOB_RULES),
    biased=(BLOCK_OUTPUT,),
    network={"non_local_scale": True},  # of the softmax; its other mode has none
    settle=_settle_pyslowfast,
    preprocessing=KINETICS,
)


def _settle_nonlocal_net(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settled:
    """Files with folded norms ("affine") attend within groups of four frames in the second stage."""
    if holds(checkpoint.tensors, r".*(?:_rm|\.running_mean)") or not holds(tensors, r"layer2\.non_local\d+\..+"):
        return {}, {}
    return {"non_local_time_window": {"layer2": 4}}, {}


NONLOCAL_NET = Family(
    name="tushar_i3res50",
    about="facebookresearch/video-nonlocal-net (32x2): its Caffe2 .pkl, and Tushar-N/pytorch-resnet3d's names",
    url="https://github.com/facebookresearch/video-nonlocal-net",
    license="CC-BY-NC-4.0",
    marks=(rf"{FLAT_BLOCK}|{_BLOB}",),
    unlike=(r"classifier\..+", r"bn\..+", r"head\..+", r".*non_local\d+\..+", r"layer\d\.\d+\.theta\..+", r"t_.*"),
    rank=5,
    may_be=_may_be_nonlocal_net,
    rules=(
        (r"((?:bn1|layer[1-4]\.\d+\.(?:bn[123]|downsample\.1)))\.scale", r"\1.weight"),
        *resnet_rules(),
        (r"(layer[1-4])\.(\d+)\.nl\.bn\.scale", r"\1.non_local\2.bn.weight"),
        (r"(layer[1-4])\.(\d+)\.nl\.(theta|phi|g|bn)\.(\w+)", r"\1.non_local\2.\3.\4"),
        (r"(layer[1-4])\.(\d+)\.nl\.out\.(\w+)", r"\1.non_local\2.w_z.\3"),
        (r"fc\.(weight|bias)", r"head.classifier.\1"),
        *BLOB_RULES,
    ),
    biased=(BLOCK_OUTPUT,),
    network={
        "stem_stride": (2, 2, 2),
        "stem_pool_kernel": (2, 3, 3),
        "stem_pool_stride": (2, 2, 2),
        "stem_pool_padding": (0, 0, 0),
        "layer1_time_pool": 2,
        "non_local_scale": True,
        "non_local_subsample": "before",
    },
    settle=_settle_nonlocal_net,
    preprocessing={**KINETICS, "num_frames": 32, "frame_step": 2},
)
