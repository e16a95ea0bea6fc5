"""Checkpoints of other projects: the carried ones, and any ResNet3d under another project's names."""

import gzip
import itertools
import json
import pickle
import re
import struct
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file

PARITY = Path(__file__).parent.parent / "parity"
FIXTURES = json.loads((PARITY / "fixtures.json").read_text())
MANIFESTS = json.loads(gzip.decompress((PARITY / "manifests.json.gz").read_bytes()))


@cache
def fixture(name):
    """State dict under the project's own keys, input clips and what the project's own code gave for them."""
    tensors = load_file(PARITY / f"{name}.safetensors")
    parts = {"ckpt": {}, "out": {}}
    for key, tensor in tensors.items():
        if key == "input":
            clips = tensor if tensor.ndim == 5 else tensor.unsqueeze(2)
        else:
            part, _, rest = key.partition("/")
            parts[part][rest] = tensor
    ordered = {key: parts["ckpt"][key] for key in MANIFESTS.get(name, ()) if key in parts["ckpt"]}
    return {**ordered, **parts["ckpt"]}, clips, parts["out"]  # safetensors sorts keys, published files do not


def published(name, state_dict=None):
    """The checkpoint wrapped and prefixed as its project publishes it."""
    wrapper = FIXTURES[name]["wrapper"]
    prefix = wrapper["key_prefix"]
    tensors = {
        key if key.startswith(prefix) else prefix + key: tensor
        for key, tensor in (state_dict or fixture(name)[0]).items()
    }
    return {wrapper["tensor_slot"]: tensors, **wrapper["extras"]} if wrapper["tensor_slot"] else tensors


def meta_state_dict(manifest):
    return {
        key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for key, (shape, dtype) in MANIFESTS[manifest].items()
    }


# From our names to theirs, written the other way round than the converters' rules, and by other means.


def to_flat(state_dict):
    """Hara, torchvision and others: our names, but for the classifier."""
    return {key.replace("head.classifier", "fc"): tensor for key, tensor in state_dict.items()}


def with_biased_blocks(state_dict):
    """A bias at the end of each non-local block, and as much more in the mean of the norm behind it."""
    biased = dict(state_dict)
    for key, tensor in state_dict.items():
        if key.endswith("w_z.weight"):
            bias = 0.1 * torch.randn(len(tensor), generator=torch.Generator().manual_seed(2))
            mean = key.replace("w_z.weight", "bn.running_mean")
            biased[key.replace("weight", "bias")] = bias
            biased[mean] = state_dict[mean] + bias
    return biased


def to_tushar(state_dict):
    renamed = {}
    for key, tensor in to_flat(with_biased_blocks(state_dict)).items():
        key = re.sub(r"\.non_local(\d+)\.", r".\1.nl.", key).replace("nl.w_z", "nl.out")
        renamed[key] = tensor
    return renamed


def renamed(state_dict, name):
    """State dict under the names that ``name`` gives for the parts of our layers' names."""
    return {f"{name(*key.rsplit('.', 1)[0].split('.'))}.{key.rsplit('.', 1)[1]}": t for key, t in state_dict.items()}


def to_pyslowfast(state_dict):
    def name(first, number="", layer="", part=""):
        if not first.startswith("layer"):
            stem = f"s1.pathway0_stem.{'conv' if first == 'conv1' else 'bn'}"
            return "head.projection" if first == "head" else stem
        stage = f"s{int(first[5:]) + 1}"
        if number.startswith("non_local"):
            conv = {"bn": "bn", "w_z": "conv_out"}.get(layer, f"conv_{layer}")
            return f"{stage}.pathway0_nonlocal{number[9:]}.{conv}"
        block = f"{stage}.pathway0_res{number}"
        if layer == "downsample":
            return f"{block}.branch1{'' if part == '0' else '_bn'}"
        return f"{block}.branch2.{'abc'[int(layer[-1]) - 1]}{'_bn' if layer[:-1] == 'bn' else ''}"

    return renamed(with_biased_blocks(state_dict), name)


def to_pytorchvideo(state_dict, *, time_pool):
    numbers = [0, 1, 3, 4, 5, 6] if time_pool else [0, 1, 2, 3, 4, 5]

    def name(first, number="", layer="", part=""):
        if not first.startswith("layer"):
            stem = f"blocks.0.{'conv' if first == 'conv1' else 'norm'}"
            return f"blocks.{numbers[5]}.proj" if first == "head" else stem
        block = f"blocks.{numbers[int(first[5:])]}.res_blocks.{number}"
        if layer == "downsample":
            return f"{block}.branch1_{'conv' if part == '0' else 'norm'}"
        return f"{block}.branch2.{'conv' if layer.startswith('conv') else 'norm'}_{'abc'[int(layer[-1]) - 1]}"

    return renamed(state_dict, name)


def to_mmaction2(state_dict, *, pooled):
    def name(first, number="", layer="", part=""):
        if not first.startswith("layer"):
            stem = f"backbone.conv1.{'conv' if first == 'conv1' else 'bn'}"
            return "cls_head.fc_cls" if first == "head" else stem
        if number.startswith("non_local"):
            conv = {"w_z": "conv_out.conv", "bn": "conv_out.bn", "w_f": "concat_project.conv", "theta": "theta.conv"}
            own = conv.get(layer, f"{layer}.0.conv" if pooled else f"{layer}.conv")
            return f"backbone.{first}.{number[9:]}.non_local_block.{own}"
        kind = "conv" if layer.startswith("conv") or (layer, part) == ("downsample", "0") else "bn"
        conv = "downsample" if layer == "downsample" else f"conv{layer[-1]}"
        return f"backbone.{first}.{number}.{conv}.{kind}"

    return renamed(state_dict, name)


def to_blobs(state_dict, *, affine=False):
    """Caffe2 blobs of PySlowFast and video-nonlocal-net, as numpy arrays."""
    short = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    blobs = {}
    for key, tensor in to_pyslowfast(state_dict).items():
        last = key.rpartition(".")[2]
        if last == "num_batches_tracked" or (affine and last.startswith("running")):
            continue
        if affine and key.endswith("conv_out.bias"):
            tensor = torch.zeros_like(tensor)
        is_norm = re.search(r"bn\.\w+$", key) is not None
        name = re.sub(r"^s(\d)\.pathway0_res(\d+)\.", r"res\1_\2_", key.rpartition(".")[0])
        name = re.sub(r"^s(\d)\.pathway0_nonlocal(\d+)\.(?:conv_)?", r"nonlocal_conv\1_\2_", name)
        name = name.replace("branch2.", "branch2").replace("head.projection", "pred")
        name = {"s1.pathway0_stem.conv": "conv1", "s1.pathway0_stem.bn": "res_conv1_bn"}.get(name, name)
        blobs[f"{name}_{short[last] if is_norm else last[0]}"] = tensor.numpy()
    return blobs


def write_python2_pickle(blobs, path):
    """Write ``{"blobs": {name: array}}`` with the opcodes and names of Python 2 and the numpy of its time."""
    written = bytearray(b"\x80\x02}(")
    memo = itertools.count()

    def text(value):
        value = value if isinstance(value, bytes) else value.encode()
        written.extend(b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value)))
        written.extend(value)
        written.extend(b"r" + struct.pack("<I", next(memo)))  # Python 2 remembers every text, the arrays' too

    text("blobs")
    written.extend(b"}(")
    for name, array in blobs.items():
        text(name)
        written.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01(")
        for size in array.shape:
            written.extend(b"J" + struct.pack("<i", size))
        written.extend(b"tcnumpy\ndtype\n")
        text(array.dtype.str[1:])
        written.extend(b"K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89")
        text(array.tobytes())
        written.extend(b"tb")
    written.extend(b"uu.")
    assert pickle.loads(bytes(written), encoding="latin1")["blobs"].keys() == blobs.keys()
    Path(path).write_bytes(written)


def scramble(model, clips):
    """Leave every start that hides a mistake: random gains and shifts, and the statistics of some clips."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            torch.nn.init.normal_(module.bias, 0, 0.2, generator=generator)
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(clips)
    return model.eval()
