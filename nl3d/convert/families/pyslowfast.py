"""PySlowFast: action classifiers, .pyth and Caffe2 .pkl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]

from nl3d.convert.families.blobs import BLOB, BLOB_RULES
from nl3d.convert.family import BLOCK_OUTPUT, KINETICS, Family, Settings, Tensors, has_kernel, holds, stages_from_2
from nl3d.convert.read import ForeignCheckpoint

_RES = r"s#\.pathway0_res(\d+)\."
_NON_LOCAL = r"s#\.pathway0_nonlocal(\d+)\."

PYSLOWFAST_RULES = (
    (r"s1\.pathway0_stem\.conv\.weight", "conv1.weight"),
    (r"s1\.pathway0_stem\.bn\.(\w+)", r"bn1.\1"),
    *stages_from_2(
        *((rf"{_RES}branch2\.{x}\.weight", rf"layer#.\1.conv{n}.weight") for n, x in enumerate("abc", 1)),
        *((rf"{_RES}branch2\.{x}_bn\.(\w+)", rf"layer#.\1.bn{n}.\2") for n, x in enumerate("abc", 1)),
        (rf"{_RES}branch1\.weight", r"layer#.\1.downsample.0.weight"),
        (rf"{_RES}branch1_bn\.(\w+)", r"layer#.\1.downsample.1.\2"),
        (rf"{_NON_LOCAL}conv_(theta|phi|g)\.(\w+)", r"layer#.non_local\1.\2.\3"),
        (rf"{_NON_LOCAL}conv_out\.(\w+)", r"layer#.non_local\1.w_z.\2"),
        (rf"{_NON_LOCAL}(?:bn|norm)\.(\w+)", r"layer#.non_local\1.bn.\2"),
    ),
    (r"head\.projection\.(weight|bias)", r"head.classifier.\1"),
)

# The max-pool after the first stage depends only on the architecture's name.
_TIME_POOL = {"2d": 1, "c2d": 2, "slow_c2d": 1, "i3d": 2, "slow_i3d": 1, "slow": 1}


def _match_pyslowfast(tensors: Tensors) -> bool:
    """Not where norms are folded, nor where blocks stand after 6, 13 and 20: that is video-nonlocal-net."""
    blobs = holds(tensors, BLOB)
    return not (blobs and (not holds(tensors, r".*_rm") or holds(tensors, r"nonlocal_conv4_(?:6|13|20)_.*")))


def _finalize_pyslowfast(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settings:
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


def _subsample(blocks: Mapping[str, Any]) -> str | dict[str, str | None] | None:
    """Read the pool of each stage's blocks; one value if all are equal, or none is said."""
    stages = {
        f"layer{number}": pool
        for number, (places, pools) in enumerate(
            zip(blocks.get("LOCATION", []), blocks.get("POOL", []), strict=False), 1
        )
        for pool in map(tuple, pools[: len(places)])
        if any(places)
    }
    known: dict[tuple[int, ...], str | None] = {(1, 2, 2): "before", (1, 1, 1): None}
    if not set(stages.values()) <= set(known):
        raise ValueError(f"cfg must pool the non-local blocks of a stage by 1x2x2 or not at all, got {stages}")
    values = {stage: known[pool] for stage, pool in stages.items()}
    return values if len(set(values.values())) > 1 else next(iter(values.values()), "before")


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
    required_keys=(rf"s[2-5]\.pathway0_res\d+\.branch2\.a\.weight|{BLOB}",),
    excluded_keys=(r".*pathway1.*", r"t_.*"),
    rank=5,
    match=_match_pyslowfast,
    rules=(*PYSLOWFAST_RULES, *BLOB_RULES),
    biased=(BLOCK_OUTPUT,),
    network={"non_local_scale": True},  # of the softmax; its other mode has none
    finalize=_finalize_pyslowfast,
    preprocessing=KINETICS,
)
