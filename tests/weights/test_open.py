"""The real client of the Hub against a small server, and what becomes of each failure."""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save, save_file

import nl3d
from nl3d.hub.fetch import fetch
from nl3d.models.resnet3d import ResNet3d
from nl3d.weights import records as weights
from nl3d.weights.open import open_weights
from tests.hub_server import Handler

ROOT = Path(nl3d.__file__).parents[1]
BODY = bytes(range(256)) * 20
TINY = {"base_width": 4, "embedding_dim": 8}


@pytest.fixture(scope="module")
def images():
    """An image network and its file, as it lies on the Hub."""
    torch.manual_seed(0)
    net = timm.create_model("resnet18").eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_var.uniform_(0.5, 1.5)
    return net, save(net.state_dict())


@pytest.fixture
def published(hub, images, monkeypatch):
    """The record of ResNet-18, with the test file's hash, and the file at the record's commit."""
    net, body = images
    spec = replace(weights.find_spec("resnet3d18", "imagenet"), sha256=hashlib.sha256(body).hexdigest())
    monkeypatch.setattr(weights, "WEIGHTS", (spec,))
    hub.add(spec.repo_id, {"model.safetensors": body}, commit=spec.revision)
    return hub, net


def test_pull_inflate_run(published):
    hub, net = published
    model = nl3d.resnet3d18("imagenet", head="linear", num_classes=1000, time_padding="replicate").eval()
    image = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        logits, expected = model(image.unsqueeze(2).expand(-1, -1, 2, -1, -1)).logits, net(image)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    assert model.pretrained_cfg["license"] == "bsd-3-clause"
    revision = weights.WEIGHTS[0].revision
    assert ("HEAD", f"/timm/resnet18.tv_in1k/resolve/{revision}/model.safetensors") in hub.log
    agent = next(headers["user-agent"] for headers in hub.headers_seen if "nl3d" in headers.get("user-agent", ""))
    assert f"nl3d/{nl3d.__version__}" in agent


def test_second_load_asks_nobody(published):
    hub, _ = published
    first = nl3d.resnet3d18_nl("imagenet")
    asked = len(hub.log)
    hub.status = 500
    second = nl3d.resnet3d18_nl("imagenet")
    assert len(hub.log) == asked
    assert torch.equal(first.conv1.weight, second.conv1.weight)


@pytest.mark.usefixtures("published")
def test_other_bytes_are_refused_and_not_kept(monkeypatch):
    right = weights.WEIGHTS
    monkeypatch.setattr(weights, "WEIGHTS", (replace(right[0], sha256="0" * 64),))
    for _ in range(2):  # the second time too: the wrong file is not left in the cache
        with pytest.raises(ValueError, match=r"must be the published file, but the bytes of .* hash to"):
            nl3d.resnet3d18("imagenet")
    monkeypatch.setattr(weights, "WEIGHTS", right)
    nl3d.resnet3d18("imagenet")


def test_garbled_bytes_are_fetched_again(hub, monkeypatch):
    """The cache names a file by what the Hub says of it, so that garbled bytes would stay under the right name."""
    answer = Handler._answer
    hub.add("org/net", {"model.safetensors": BODY})
    right = hashlib.sha256(BODY).hexdigest()

    def garbled(self, status, body=b"", headers=None, **kwargs):
        answer(self, status, body[::-1] if kwargs.get("may_cut") else body, headers, **kwargs)

    monkeypatch.setattr(Handler, "_answer", garbled)
    with pytest.raises(ValueError, match="must be the published file"):
        fetch("org/net", "model.safetensors", sha256=right)
    monkeypatch.setattr(Handler, "_answer", answer)
    assert fetch("org/net", "model.safetensors", sha256=right).read_bytes() == BODY


def test_a_damaged_file_of_the_cache_is_fetched_again(hub):
    commit = hub.add("org/net", {"model.safetensors": BODY})
    right = {"revision": commit, "sha256": hashlib.sha256(BODY).hexdigest()}
    path = fetch("org/net", "model.safetensors", **right)
    path.resolve().write_bytes(BODY[::-1])
    assert fetch("org/net", "model.safetensors", **right).read_bytes() == BODY
    path.resolve().write_bytes(BODY[::-1])
    with pytest.raises(FileNotFoundError, match="not in the cache"):
        fetch("org/net", "model.safetensors", local_files_only=True, **right)


def test_a_file_of_the_cache_is_hashed_once(hub, monkeypatch):
    from nl3d.hub import fetch as module

    commit = hub.add("org/net", {"model.safetensors": BODY})
    fetch("org/net", "model.safetensors", revision=commit)  # without a hash, by an older version or another library
    read = []
    monkeypatch.setattr(module, "_hash", lambda path, hashed=module._hash: read.append(path) or hashed(path))
    for _ in range(3):
        fetch("org/net", "model.safetensors", revision=commit, sha256=hashlib.sha256(BODY).hexdigest())
    assert len(read) == 1


def test_a_download_that_drips_ends(hub, monkeypatch):
    hub.add("org/net", {"model.safetensors": BODY})
    monkeypatch.setattr("nl3d.hub.fetch._DOWNLOAD_TIME", 0.2)
    monkeypatch.setattr("nl3d.hub.fetch.hf_hub_download", lambda *args, **options: time.sleep(5))
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="less than 20 kB per second"):
        fetch("org/net", "model.safetensors")
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("text", ["[" * 100_000, "no JSON", "[1]"])
def test_a_file_whose_config_is_no_object_is_refused(text, tmp_path):
    model = nl3d.resnet3d18(**TINY)
    save_file(model.state_dict(), tmp_path / "x.safetensors", {"config": text})
    for door in (nl3d.from_pretrained, nl3d.resnet3d18, nl3d.from_checkpoint):
        with pytest.raises(
            ValueError, match=r"config\.json must be (?:JSON|a JSON object), but that of .*x\.safetensors"
        ):
            door(str(tmp_path / "x.safetensors"), **({"family": "nl3d"} if door is nl3d.from_checkpoint else {}))


def test_branch_tag_commit_and_its_first_digits(hub, tmp_path):
    old = hub.add("org/net", {"model.safetensors": b"old"}, commit="54887a0" + "1" * 33)
    new = hub.add("org/net", {"model.safetensors": b"new"}, commit="64887a0" + "2" * 33)
    hub.add("org/net", {"model.safetensors": b"dev"}, branch="v1.0", commit="7" * 40)
    hub.repos["org/net"].branches["main"] = new

    def read(revision=None):
        return fetch("org/net", "model.safetensors", revision=revision).read_bytes()

    assert [read(), read("main"), read(old), read("v1.0"), read("54887a0"), read("54887a01")] == [
        b"new", b"new", b"old", b"dev", b"old", b"old"
    ]  # fmt: skip
    hub.status = 503
    assert read("54887a0") == b"old"  # the cache knows the rest of the hash
    hub.status = None
    with pytest.raises(ValueError, match="must name one commit of org/net, got 'abcdef0', which 0 begin with"):
        read("abcdef0")


def test_a_moved_branch_is_followed_and_a_silent_hub_serves_the_last(hub):
    hub.add("org/net", {"config.json": b"1"})
    assert fetch("org/net", "config.json").read_bytes() == b"1"
    hub.add("org/net", {"config.json": b"22"})
    assert fetch("org/net", "config.json").read_bytes() == b"22"
    hub.status = 503
    assert fetch("org/net", "config.json").read_bytes() == b"22"
    hub.status = None
    assert fetch("org/net", "config.json", local_files_only=True).read_bytes() == b"22"


def test_a_renamed_repository_is_found(hub):
    hub.add("org/new", {"config.json": b"{}"})
    hub.moved["org/old"] = "org/new"
    assert fetch("org/old", "config.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("error", "change", "message"),
    [
        (FileNotFoundError, {"file": "none.safetensors"}, "has no such file at that revision"),
        (FileNotFoundError, {"revision": "v9"}, "has no such revision"),
        (PermissionError, {"repo": "org/none"}, "has not or does not show you"),
        (ConnectionError, {"status": 500}, "answers with status 500; try again later"),
        (ConnectionError, {"status": 503}, "answers with status 503; try again later"),
        (ConnectionError, {"status": 429}, "answers with status 429; try again later"),
        (PermissionError, {"status": 403}, "has not or does not show you .status 403."),
    ],
)
def test_refusals_are_one_sentence(hub, error, change, message):
    hub.add("org/net", {"model.safetensors": BODY})
    hub.status = change.get("status")
    hub.extra_headers = {"Retry-After": "3600"} if hub.status in (429, 503) else {}  # nobody waits for an hour
    start = time.monotonic()
    with pytest.raises(error, match=message) as refusal:
        fetch(change.get("repo", "org/net"), change.get("file", "model.safetensors"), revision=change.get("revision"))
    assert time.monotonic() - start < 5
    assert str(refusal.value).startswith("weights need ")
    assert "\n" not in str(refusal.value)


def test_a_gated_repository_opens_to_the_token_and_storage_never_sees_it(hub, monkeypatch):
    hub.add("org/gated", {"model.safetensors": BODY}, gated=True)
    with pytest.raises(PermissionError, match="which is gated; ask for access at"):
        fetch("org/gated", "model.safetensors")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert fetch("org/gated", "model.safetensors").read_bytes() == BODY
    seen = zip(hub.log, hub.headers_seen, strict=True)
    assert not any("authorization" in headers for (_, path), headers in seen if path.startswith("/storage"))


def test_a_private_repository_needs_the_token(hub, monkeypatch):
    hub.add("org/private", {"model.safetensors": BODY}, private=True)
    with pytest.raises(PermissionError, match="log in with `hf auth login` or HF_TOKEN"):
        fetch("org/private", "model.safetensors")
    assert fetch("org/private", "model.safetensors", token=hub.token).read_bytes() == BODY


def test_a_cut_connection_is_taken_up_again(hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits a second before each new attempt
    hub.add("org/net", {"model.safetensors": BODY})
    hub.cut_after, hub.cuts_left = 1000, 1
    assert fetch("org/net", "model.safetensors").read_bytes() == BODY


def test_a_connection_cut_each_time_is_one_error_and_leaves_no_file(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.add("org/net", {"model.safetensors": BODY})
    hub.cut_after = 1000
    with pytest.raises(ConnectionError, match="could not be fetched whole from"):
        fetch("org/net", "model.safetensors")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size >= 1000]
    hub.cut_after = None
    assert fetch("org/net", "model.safetensors").read_bytes() == BODY


def test_no_network_and_a_hub_that_stalls(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    hub.add("org/net", {"model.safetensors": BODY})
    hub.stall = 20
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="check the connection, proxy and HF_ENDPOINT"):
        fetch("org/net", "model.safetensors")
    hub.stall = None
    hub.shutdown()
    hub.server_close()
    with pytest.raises(ConnectionError, match="or pass the path of a file"):
        fetch("org/net", "model.safetensors")
    assert time.monotonic() - start < 5


def test_a_full_disk_is_not_blamed_on_the_network(hub, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nl3d.hub.fetch.hf_hub_download", full)
    hub.add("org/net", {"model.safetensors": BODY})
    with pytest.raises(OSError, match="No space left on device"):
        fetch("org/net", "model.safetensors")


def saved(tmp_path, **options):
    model = nl3d.resnet3d18_nl(num_classes=3, **TINY, **options).eval()
    torch.nn.init.normal_(model.layer2.non_local1.bn.weight)
    model.save_pretrained(tmp_path / "saved")
    return model, {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}


def test_a_saved_network_from_the_hub(hub, tmp_path):
    model, files = saved(tmp_path, time_padding="replicate", last_stride=1)
    commit = hub.add("org/net", files)
    hub.add("org/net", {})  # the branch has moved on to nothing
    again = nl3d.resnet3d18_nl(f"hf-hub:org/net@{commit}", num_classes=3).eval()
    other = ResNet3d.from_pretrained("org/net", revision=commit)
    clips = torch.rand(2, 3, 3, 64, 32)
    for copy in (again, other):  # widths, stride and padding come from the saved config
        torch.testing.assert_close(copy(clips), model(clips))
    assert nl3d.resnet3d18_nl(f"hf-hub:org/net@{commit}").num_classes == 0
    with pytest.raises(FileNotFoundError, match=r"config\.json, but .* has no such file"):
        nl3d.resnet3d18_nl("hf-hub:org/net")


@pytest.mark.parametrize(
    "weights", ["hf-hub:net", "hf-hub:", "hf-hub:a/b/c", "hf-hub:org/net@", "hf-hub:org/net@v1@v2"]
)
def test_a_broken_address_is_refused(weights):
    with pytest.raises(ValueError, match="must be 'hf-hub:org/name' or 'hf-hub:org/name@revision'"):
        open_weights("resnet3d50", weights)


def test_a_damaged_config_is_refused(hub, tmp_path):
    _, files = saved(tmp_path)
    hub.add("org/net", {**files, "config.json": b"{broken"})
    with pytest.raises(ValueError, match=r"config\.json must be JSON"):
        nl3d.resnet3d18("hf-hub:org/net")
    hub.add("org/net", {**files, "config.json": b"[1]"})
    with pytest.raises(ValueError, match=r"config\.json must be a JSON object, .* is a list"):
        nl3d.resnet3d18("hf-hub:org/net")


def test_weights_of_other_blocks_are_refused(hub, tmp_path):
    _, files = saved(tmp_path)
    hub.add("org/net", files)
    with pytest.raises(ValueError, match=r"must be of a resnet3d50 with block='bottleneck', got block='basic'"):
        nl3d.resnet3d50("hf-hub:org/net")
    with pytest.raises(ValueError, match="hold non-local blocks, which resnet3d18 has none of; use resnet3d18_nl"):
        nl3d.resnet3d18("hf-hub:org/net")


CHILD = """
import json, sys, nl3d
name, source = sys.argv[1:]
try:
    if source == "timm":
        import timm
        nl3d.register_timm()
        model = timm.create_model(name, pretrained=True)
    else:
        model = getattr(nl3d, name)(source)
    print(json.dumps(float(model.conv1.weight.detach().double().sum())))
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def child(name, source, **environment):
    """What a fresh process says, where huggingface_hub reads its environment itself."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, name, source],
        env={**clean, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1,localhost", **environment},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_hub_s_environment_variables(hub, tmp_path):
    """HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE, each read by the client in a process of its own."""
    model, files = saved(tmp_path)
    hub.add("org/net", files, gated=True)
    known = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    address = "hf-hub:org/net"
    expected = float(model.conv1.weight.detach().double().sum())

    kind, text = child("resnet3d18_nl", address, HF_HUB_OFFLINE="1", **known)
    assert kind == "FileNotFoundError"
    assert "HF_HUB_OFFLINE" in text
    assert hub.log == []
    assert child("resnet3d18_nl", address, HF_TOKEN=hub.token, **known) == pytest.approx(expected)
    assert list((tmp_path / "home/hub/models--org--net").rglob("model.safetensors"))
    asked = len(hub.log)
    assert child(address, "timm", HF_HUB_OFFLINE="1", **known) == pytest.approx(expected)
    assert len(hub.log) == asked
