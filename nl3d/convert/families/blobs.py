"""Blob names of FAIR's Caffe2 files, which two projects share for different networks."""

from __future__ import annotations

from nl3d.convert.family import Rules, stages_from_2

BLOB = r"res[2-5]_\d+_branch2a_w"
_STATISTICS = (("s", "weight"), ("b", "bias"), ("rm", "running_mean"), ("riv", "running_var"))  # riv is the variance
_NORMS = (
    *((rf"res#_(\d+)_branch2{x}_bn", rf"layer#.\1.bn{n}") for n, x in enumerate("abc", 1)),
    (r"res#_(\d+)_branch1_bn", r"layer#.\1.downsample.1"),
    (r"nonlocal_conv#_(\d+)_bn", r"layer#.non_local\1.bn"),
)

BLOB_RULES: Rules = (
    (r".*_momentum|lr|model_iter|.*_iter|gpu_\d+.*", None),
    (r"conv1_w", "conv1.weight"),
    *((rf"res_conv1_bn_{short}", rf"bn1.{name}") for short, name in _STATISTICS),
    *stages_from_2(
        *((rf"res#_(\d+)_branch2{x}_w", rf"layer#.\1.conv{n}.weight") for n, x in enumerate("abc", 1)),
        (r"res#_(\d+)_branch1_w", r"layer#.\1.downsample.0.weight"),
        (r"nonlocal_conv#_(\d+)_(theta|phi|g)_w", r"layer#.non_local\1.\2.weight"),
        (r"nonlocal_conv#_(\d+)_(theta|phi|g)_b", r"layer#.non_local\1.\2.bias"),
        (r"nonlocal_conv#_(\d+)_out_w", r"layer#.non_local\1.w_z.weight"),
        (r"nonlocal_conv#_(\d+)_out_b", r"layer#.non_local\1.w_z.bias"),
        *((f"{norm}_{short}", f"{ours}.{name}") for norm, ours in _NORMS for short, name in _STATISTICS),
    ),
    (r"pred_w", "head.classifier.weight"),
    (r"pred_b", "head.classifier.bias"),
)
