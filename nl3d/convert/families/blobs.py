"""Blob names of FAIR's Caffe2 files, which two projects share for different networks."""

from __future__ import annotations

from nl3d.convert.family import Rules, Tensors, has_kernel

BLOB = r"res[2-5]_\d+_branch2a_w"
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


def blob_is_slow(tensors: Tensors) -> bool:
    """Only PySlowFast has Slow networks: time spanned in the last two stages and not before."""
    early = has_kernel(tensors, r"conv1_w", spatial=True) or has_kernel(tensors, r"res[23]_.*_w", spatial=False)
    return not early and has_kernel(tensors, r"res[45]_.*_w", spatial=False)


def blob_is_deep(tensors: Tensors) -> bool:
    """Whether the third stage has the 23 blocks of a ResNet-101."""
    return "res4_22_branch2a_w" in tensors
