"""Files of weights are read as data: broken and hostile ones are refused, and nothing in them is run."""

import argparse
import builtins
import io
import os
import pickle
import re
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import nl3d
from nl3d import from_checkpoint
from nl3d.convert.read import read_checkpoint
from tests.convert.foreign import PARITY, fixture, published, write_python2_pickle


class Call:
    """An object that a pickle rebuilds by calling something."""

    def __init__(self, function, *args):
        self.parts = (function, args)

    def __reduce__(self):
        return self.parts


class Built(dict):
    """An object that a pickle rebuilds by setting its state."""

    def __reduce__(self):
        return (Built, (), {"state": 1})


def exploits(marker):
    """What each would do if it were run: leave a file behind."""
    touch = f"open({str(marker)!r}, 'w').close()"
    return {
        "system": Call(os.system, f"touch {marker}"),
        "eval": Call(builtins.eval, touch),
        "exec": Call(exec, touch),
        "open": Call(open, str(marker), "w"),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "popen": Call(subprocess.Popen, ["touch", str(marker)]),
        "numpy": Call(np.save, str(marker), 0),
        "torch": Call(torch.save, 0, str(marker)),
        "module": torch.nn.Linear(2, 2),
        "class": Built(),
    }


NAMES = tuple(exploits("marker"))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", NAMES)
def test_plain_pickles_that_name_code_are_refused(name, protocol, marker, tmp_path):
    path = tmp_path / "weights.pkl"
    payload = {"blobs": {"conv1_w": np.zeros(3, "f4"), "deep": [{"er": exploits(marker)[name]}]}}
    path.write_bytes(pickle.dumps(payload, protocol))
    with pytest.raises(ValueError, match=r"weights\.pkl must") as refusal:
        read_checkpoint(path)
    assert "which is not run here" in str(refusal.value)
    assert not marker.exists()
    assert not marker.with_suffix(".npy").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("name", NAMES)
def test_torch_files_that_name_code_are_refused(name, kind, marker, tmp_path):
    path = tmp_path / "weights.pth"
    payload = {"state_dict": {"conv1.weight": torch.zeros(3)}, "extra": exploits(marker)[name]}
    torch.save(payload, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ValueError, match=r"weights\.pth must hold nothing but tensors and numbers, but names"):
        read_checkpoint(path)
    assert not marker.exists()
    assert not marker.with_suffix(".npy").exists()


def test_a_whole_pickled_network_is_refused_with_the_remedy(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"names torch\.nn\.modules\.linear\.Linear.*save its state_dict\(\)"):
        from_checkpoint(tmp_path / "net.pth")


@pytest.mark.parametrize(
    "written",
    [
        b"cos\nsystem\n(S'touch marker'\ntR.",
        b"(cos\nsystem\nS'touch marker'\no.",
        b"(S'touch marker'\nios\nsystem\n.",
        b"\x80\x02cnumpy.core.multiarray\nload\n.",
        b"\x80\x02cnumpy\ncore.multiarray.scalar\n.",
        b"\x80\x02c__builtin__\ngetattr\n(cnumpy\nndarray\nU\x08tobytes\nt.",
        b"\x80\x04\x8c\x05numpy\x8c\x08f2py.os.system\x93.",
        b"\x80\x02}(U\x01aPx\n.",
        b"\x80\x02\x82\x01.",
    ],
)
def test_opcodes_that_would_reach_code_are_refused(written, tmp_path):
    (tmp_path / "weights.pkl").write_bytes(written)
    with pytest.raises(ValueError, match=r"weights\.pkl must"):
        read_checkpoint(tmp_path / "weights.pkl")


@pytest.mark.parametrize(
    "written",
    [
        b"\x80\x02cnumpy\ndtype\n(U\x01Ot\x81.",  # objects instead of numbers
        b"\x80\x02cnumpy\ndtype\nU\x01O\x85R.",
        b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
        b"\x80\x02cnumpy.core.multiarray\nscalar\n(U\x02f4U\x04abcdtR.",  # no dtype, but its name
    ],
)
def test_arrays_of_anything_but_numbers_are_refused(written, tmp_path):
    (tmp_path / "weights.pkl").write_bytes(written)
    with pytest.raises(ValueError, match=r"weights\.pkl must"):
        read_checkpoint(tmp_path / "weights.pkl")


def test_no_file_changes_what_the_next_one_meets(tmp_path):
    hostile = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}(U\x0c__defaults__(tu\x86b."
    (tmp_path / "hostile.pkl").write_bytes(hostile)
    with pytest.raises(ValueError, match="must"):
        read_checkpoint(tmp_path / "hostile.pkl")
    assert len(read_checkpoint(PARITY / "tushar_i3res50_nl.caffe2.pkl").tensors) > 300


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_python_3_are_read(protocol, tmp_path):
    arrays = {
        "a": np.arange(6, dtype="f4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype="f8").reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">i4"),
        "sliced": np.arange(12).reshape(3, 4)[:, ::2],
        "scalar": np.array(3.5, dtype="f2"),
        "empty": np.zeros((0, 2), "f4"),
    }
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps({"blobs": {**arrays, "lr": np.float32(0.1)}}, protocol))
    checkpoint = read_checkpoint(tmp_path / "weights.pkl")
    assert checkpoint.extras["lr"] == pytest.approx(0.1)
    for name, array in arrays.items():
        assert torch.equal(
            checkpoint.tensors[name],
            torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).reshape(array.shape)),
        )
    checkpoint.tensors["a"].add_(1)  # own memory


def test_pickles_of_python_2_are_read(tmp_path):
    blobs = {"conv1_w": np.random.default_rng(0).normal(size=(4, 3, 5, 7, 7)).astype("f4"), "model_iter": np.arange(3)}
    write_python2_pickle(blobs, tmp_path / "old.pkl")
    tensors = read_checkpoint(tmp_path / "old.pkl").tensors
    assert all(np.array_equal(tensors[name].numpy(), array) for name, array in blobs.items())


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "caffe2"])
def test_files_that_are_cut_off_are_refused(kind, tmp_path):
    path = tmp_path / "whole"
    tensors = fixture("torchvision_resnet50")[0]
    if kind == "safetensors":
        save_file(tensors, path)
    elif kind == "caffe2":
        path = PARITY / "tushar_i3res50_nl.caffe2.pkl"
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for share in (0.00001, 0.001, 0.3, 0.9, 0.9999):
        (tmp_path / "cut.pth").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r"cut\.pth must be a whole file of weights"):
            read_checkpoint(tmp_path / "cut.pth")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 102530333\n"


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty, 0 bytes"),
        (POINTER, "a pointer of Git LFS, not the file itself; fetch it with: git lfs pull"),
        (b"\r\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning", "a web page, not the file itself"),
        (b'{"error": "Invalid credentials"}', "text, such as the error message of a server"),
        (b"Entry not found", "text, such as the error message of a server"),
        (b"\x1f\x8b\x08" + bytes(60), "a gzip archive; unpack it first"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "an HDF5 file, as Keras writes"),
        (bytes(4096), "zeros only, the start of a download that did not finish"),
        (b"0" * 257 + b"ustar" + bytes(512), "a tar archive"),
        (b"\x08\x09\x12\x07pytorch" + bytes(64), "an ONNX model"),
        (b"\x08\x01\x12\x05serve" + bytes(64), "a TensorFlow model"),
        (b"rate limit exceeded, come back later", "text, not tensors"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_files_that_are_no_weights_are_named(content, what, suffix, tmp_path):
    path = tmp_path / f"file.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"file.{suffix} must be a file of weights, but is {what}")):
        from_checkpoint(path)
    with pytest.raises(ValueError, match=re.escape(what)):
        nl3d.resnet3d18(str(path))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["a.npy", "b.npy"], "it is NumPy's .npz; save a dictionary of tensors"),
        (["config.json", "model.weights.h5"], "it is a Keras model; use the PyTorch checkpoint"),
        (["readme.txt"], "it is a zip archive of 'readme.txt'; unpack it first"),
    ],
)
def test_archives_of_other_things_are_named(names, what, suffix, tmp_path):
    path = tmp_path / f"file.{suffix}"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    for door in (from_checkpoint, nl3d.from_pretrained, nl3d.resnet3d18):
        with pytest.raises(ValueError, match=rf"file\.{suffix}.*{re.escape(what)}"):
            door(str(path))


def test_weights_of_torch_save_under_the_name_of_safetensors_are_read(tmp_path):
    torch.save(published("torchreid_resnet50"), tmp_path / "x.safetensors")
    assert nl3d.from_pretrained(tmp_path / "x.safetensors").pretrained_cfg["family"] == "torchreid"


def test_options_beside_the_weights_are_read(tmp_path):
    options = argparse.Namespace(lr=0.1, model="resnet18", betas=(0.9, 0.999))
    for number, kind in enumerate((True, False)):
        path = tmp_path / f"{number}.pth"
        content = {"state_dict": {"conv1.weight": torch.ones(2)}, "args": options}
        torch.save(content, path, _use_new_zipfile_serialization=kind)
        assert read_checkpoint(path).extras["args"] == options


def test_the_order_of_keys_and_the_versions_of_modules_are_kept(tmp_path):
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    torch.save(network.state_dict(), tmp_path / "net.pth")
    checkpoint = read_checkpoint(tmp_path / "net.pth")
    assert list(checkpoint.tensors) == list(network.state_dict())
    assert checkpoint.extras["_metadata"]["0"] == {"version": 2}


def bombs(folder):
    """Small files that ask for much: what each is, and the reason of its refusal."""
    tensor = torch.zeros(1)
    torch.save({"w": tensor.expand(2**30)}, folder / "expanded.pth")
    with zipfile.ZipFile(folder / "zip.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/data/0", bytes(2**28))
    (folder / "memo.pkl").write_bytes(b"\x80\x02Nr\xff\xff\xff\x7f.")
    (folder / "memo.pth").write_bytes(_zip_of(b"\x80\x02Nr\xff\xff\xff\x7f."))
    torch.save({"w": torch.zeros(8)}, folder / "storage.pth", _use_new_zipfile_serialization=False)
    legacy = (folder / "storage.pth").read_bytes()
    assert legacy.count(b"K\x08") >= 1
    (folder / "storage.pth").write_bytes(legacy.replace(b"K\x08", b"J\xff\xff\xff\x7f", 1))
    (folder / "bytearray.pth").write_bytes(_zip_of(b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x7f\x85R."))
    laughs = b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (n, n - 1, n - 1) for n in range(1, 60)) + b"."
    (folder / "laughs.pkl").write_bytes(laughs)
    return {
        "expanded.pth": "would take 4,294,967,296 bytes",
        "zip.pth": "entries are compressed",
        "memo.pkl": "must hold a state dict, but holds a NoneType",
        "memo.pth": "memo has entries that were never made",
        "storage.pth": "a storage is larger than the file",
        "bytearray.pth": r"names __builtin__\.bytearray",
        "laughs.pkl": "must hold a state dict, but holds a list",
    }


def _zip_of(data):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/version", "3\n")
    return content.getvalue()


def test_small_files_never_take_much_memory(tmp_path):
    reasons = bombs(tmp_path)
    for name, reason in reasons.items():
        code = (
            "import resource, sys; from nl3d.convert.read import read_checkpoint; from pathlib import Path\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "try: read_checkpoint(Path(sys.argv[1]))\n"
            "except ValueError as error: print(error)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
        )
        done = subprocess.run([sys.executable, "-c", code, tmp_path / name], capture_output=True, text=True, timeout=60)
        message, grown = done.stdout.splitlines()
        assert re.search(reason, message), (name, message)
        assert int(grown) < 100 * 1024, (name, grown)  # kibibytes


def test_many_keys_take_time_in_proportion():
    started = time.perf_counter()
    read_checkpoint({"state_dict": {"w": torch.zeros(1)}, **{f"key{number}": number for number in range(200_000)}})
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "content",
    [
        b"hello world, no weights here",
        b"PK\x03\x04" + bytes(100),
        (2**62).to_bytes(8, "little") + b"{" + bytes(64),
    ],
)
def test_files_of_other_kinds_are_refused(content, tmp_path):
    (tmp_path / "other.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.pth must") as refusal:
        from_checkpoint(tmp_path / "other.pth")
    assert "\n" not in str(refusal.value)


def test_files_without_a_state_dict_are_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="must hold a state dict, but holds a list"):
        read_checkpoint(tmp_path / "list.pth")
    torch.save({"epoch": 3, "optimizer": {"state": {}}}, tmp_path / "none.pth")
    with pytest.raises(ValueError, match="must hold tensors, but holds none: 'epoch', 'optimizer'"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match=r"gone\.pth.*does not exist"):
        read_checkpoint(tmp_path / "gone.pth")


def test_numbers_that_training_scripts_leave_behind_are_no_hindrance(tmp_path):
    extras = {
        "rank1": np.float64(0.88),
        "mAP": np.float32(0.7),
        "curve": np.arange(3),
        "lr": [0.1],
        "arch": "resnet-50",
    }
    torch.save({"state_dict": OrderedDict(fc=torch.ones(2)), **extras}, tmp_path / "trained.pth")
    checkpoint = read_checkpoint(tmp_path / "trained.pth")
    assert checkpoint.extras["rank1"] == 0.88
    assert checkpoint.extras["arch"] == "resnet-50"
    assert torch.equal(checkpoint.extras["curve"], torch.arange(3))


def test_prefixes_are_taken_off_and_said():
    checkpoint = read_checkpoint(
        {"state_dict": {"module.model.conv1.weight": torch.zeros(2), "module.model.x": torch.ones(1)}}
    )
    assert list(checkpoint.tensors) == ["conv1.weight", "x"]
    assert checkpoint.prefix == "module.model."
    several = {f"module.{number}": torch.zeros(1) for number in range(30)}
    assert "stray" in read_checkpoint({**several, "stray": torch.zeros(1)}).tensors
    with pytest.raises(ValueError, match=r"some keys stand with 'module\.' and without"):
        read_checkpoint({**several, "3": torch.zeros(1)})


def test_a_file_may_be_written_anew_under_the_network(tmp_path):
    for kind in ("zip", "safetensors"):
        path = tmp_path / kind
        tensors = fixture("torchvision_resnet50")[0]
        save_file(tensors, path) if kind == "safetensors" else torch.save(tensors, path)
        model = from_checkpoint(path, num_classes=17)
        path.write_bytes(b"")
        assert torch.equal(model.conv1.weight.squeeze(2), tensors["conv1.weight"])


MEASURE = """
import sys
import torch
import nl3d
import nl3d
from nl3d import from_checkpoint

def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

for path in sys.argv[1:]:
    size = len(open(path, "rb").read())
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    from_checkpoint(path, family="tushar_i3res50")
    print((status("VmHWM") - before) / size)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's peak memory")
def test_loading_takes_little_more_than_twice_the_files_memory(tmp_path):
    from nl3d.models.resnet3d import ResNet3d
    from tests.convert.foreign import to_blobs, to_flat

    network = ResNet3d(layout="i3d", block_counts=(1, 1, 1, 3), base_width=64, head="linear", num_classes=400)
    paths = [tmp_path / kind for kind in ("caffe2", "safetensors", "zip")]
    write_python2_pickle(to_blobs(network.state_dict()), paths[0])
    save_file(to_flat(network.state_dict()), paths[1])
    torch.save({"state_dict": to_flat(network.state_dict())}, paths[2])
    assert all(path.stat().st_size > 6e7 for path in paths)
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=True)
    peaks = list(map(float, done.stdout.split()))
    assert len(peaks) == 3
    assert peaks[0] > 1.5  # or nothing was measured; the later ones find memory that the first gave back
    assert max(peaks) < 2.2, peaks
