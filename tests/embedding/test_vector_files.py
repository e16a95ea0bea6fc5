import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nl3d.embedding.embeddings import Embeddings
from tests.embedding.people import embeddings

ROWS = torch.arange(6.0).view(3, 2)
PIDS, CAMIDS, NAMES = [7, -1, 0], [1, 2, 1], ["a", "b", "c"]


def write_npz(path, key="embeddings", **more):
    np.savez(path, **{key: ROWS.numpy()}, **more)


def write_safetensors(path):
    tensors = {"features": ROWS, "pids": torch.tensor(PIDS), "camids": torch.tensor(CAMIDS), "other": torch.zeros(9)}
    save_file(tensors, path, metadata={"names": json.dumps(NAMES)})


def write_own(path):
    embeddings(ROWS, names=tuple(NAMES), pids=torch.tensor(PIDS), camids=torch.tensor(CAMIDS)).save(path)


def write_torch(path):
    torch.save(
        {"features": ROWS, "pids": PIDS, "camids": torch.tensor(CAMIDS, dtype=torch.int16), "names": NAMES}, path
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("own.safetensors", write_own),
        ("foreign.safetensors", write_safetensors),
        ("foreign.npz", lambda path: write_npz(path, pids=PIDS, camids=np.uint8(CAMIDS), names=NAMES)),
        ("foreign.NPZ", lambda path: write_npz(path.open("wb"), "features", pids=PIDS, camids=CAMIDS, names=NAMES)),
        ("foreign.pt", write_torch),
        ("foreign.pth", write_torch),
    ],
)
def test_reads_vectors_and_labels_of_every_kind(tmp_path, name, write):
    write(tmp_path / name)
    found = Embeddings.load(tmp_path / name)
    assert torch.equal(found.embeddings, ROWS)
    assert (found.pids.tolist(), found.camids.tolist(), found.names) == (PIDS, CAMIDS, tuple(NAMES))
    assert found.pids.dtype == found.camids.dtype == torch.int64


def test_labels_may_be_missing(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS.numpy().astype(">f8"))
    torch.save(ROWS.half().requires_grad_(), tmp_path / "rows.pt")
    write_npz(tmp_path / "rows.npz", huge=np.zeros(9))
    for name, dtype in (("rows.npy", torch.float64), ("rows.pt", torch.float32), ("rows.npz", torch.float32)):
        found = Embeddings.load(tmp_path / name)
        assert torch.equal(found.embeddings, ROWS.to(dtype))
        assert not found.embeddings.requires_grad
        assert (found.pids, found.camids, found.has_names) == (None, None, False)


def test_knows_which_network_made_our_own(tmp_path):
    embeddings(ROWS, metadata={"network": "abc", "output": "features"}).save(tmp_path / "own.safetensors")
    assert Embeddings.load(tmp_path / "own.safetensors").metadata == {"network": "abc", "output": "features"}


class Runs:
    def __reduce__(self):
        return print, ("this ran",)


def write_pickle(path):
    with path.open("wb") as file:
        pickle.dump({"embeddings": Runs()}, file, protocol=2)


def write_bomb(path):
    np.savez_compressed(path, embeddings=np.zeros((50_000_000, 1)))


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("rows.txt", lambda path: path.write_text("1,2"), r"must end in .safetensors, .npz, .npy, .pt, .pth, .csv, "),
        ("rows.csv", lambda path: path.write_text("1,2"), "must have the columns 0, 1, .* but lacks 0"),
        ("rows.npz", lambda path: path.write_bytes(b"noise"), "rows.npz' must hold embeddings, but is text"),
        ("rows.npy", lambda path: path.write_bytes(b""), "rows.npy' cannot be read: "),
        ("rows.safetensors", lambda path: path.write_bytes(b"noise" * 9), "rows.safetensors' must .* is text"),
        ("rows.pt", lambda path: path.write_bytes(b"noise"), "rows.pt' must hold embeddings, but is text"),
        ("rows.pt", write_pickle, "rows.pt' cannot be read: "),
        ("rows.npz", lambda path: np.savez(path, vectors=ROWS), "either 'embeddings' or 'features', got 'vectors'$"),
        ("rows.npz", lambda path: np.savez(path), "must hold either 'embeddings' or 'features', got nothing"),
        ("rows.npz", lambda path: write_npz(path, features=ROWS), "got 'embeddings', 'features'"),
        ("rows.npz", lambda path: np.savez(path, embeddings=np.array([{}], dtype=object)), "Object arrays cannot"),
        ("rows.npy", lambda path: np.save(path, np.arange(6).reshape(3, 2)), "floating point .* got torch.int64"),
        ("rows.npy", lambda path: np.save(path, np.zeros(3)), r"must be floating point .* got torch.float64 \(3,\)"),
        ("rows.npy", lambda path: np.save(path, np.array([["a"]])), r"must be floating point .* got <U1 \(1, 1\)"),
        ("rows.pt", lambda path: torch.save([[1], [2, 3]], path), "must be an array of numbers or text, got list"),
        ("rows.npz", lambda path: write_npz(path, pids=PIDS[:2]), r"^pids of '.*' must be \(3,\), one .* shape \(2,\)"),
        ("rows.npz", lambda path: write_npz(path, camids=[1, 2.5, 3]), r"^camids of '.*': label must be .* '2.5'"),
        ("rows.npz", lambda path: write_npz(path, pids=[1, np.nan, 3]), r"^pids of '.*': label must be .* 'nan'"),
        ("rows.npz", lambda path: write_npz(path, pids=[True] * 3), r"^pids of '.*' must be whole numbers, got bool"),
        ("rows.npz", lambda path: write_npz(path, track_ids=[1.0, 2, 3]), r"^track_ids of .* must be whole numbers"),
        ("rows.npz", lambda path: write_npz(path, names=["a"]), r"^names of '.*' must be \(3,\), one .* shape \(1,\)"),
        ("rows.npz", write_bomb, "its arrays would take 400,000,128 bytes, far more than the file"),
    ],
)  # fmt: skip
def test_refuses_in_one_sentence(tmp_path, name, write, message, capsys):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message) as refusal:
        Embeddings.load(tmp_path / name)
    assert "\n" not in str(refusal.value)
    assert capsys.readouterr().out == ""  # nothing in a file was run


def test_refuses_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"embeddings file '.*none.npz' does not exist; nl3d embed writes one"):
        Embeddings.load(tmp_path / "none.npz")


@pytest.mark.parametrize("suffix", ["npz", "pt", "safetensors"])
def test_labels_are_parsed_as_in_tables(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    people = {"npz": ["ann", "0007", "-1.0"], "pt": ["ann", 7, -1], "safetensors": torch.tensor([3.0, 7, -1])}[suffix]
    if suffix == "npz":
        write_npz(path, pids=people, camids=np.array([1.0, 2, 2]))
    elif suffix == "pt":
        torch.save({"features": ROWS, "pids": people, "camids": np.array([1, 2, 2])}, path)
    else:
        save_file({"features": ROWS, "pids": people, "camids": torch.tensor([1, 2, 2]).short()}, path)
    found = Embeddings.load(path)
    assert found.people == ("3" if suffix == "safetensors" else "ann", "7", "-1")
    assert found.pids.tolist() == [3 if suffix == "safetensors" else 1, 7, -1]
    assert (found.cameras, found.camids.tolist()) == (("1", "2", "2"), [1, 2, 2])


def test_ids_of_64_bits_stay_apart(tmp_path):
    ids = np.array([2**64 - 1, 2**64 - 2, 2**63], dtype=np.uint64)
    write_npz(tmp_path / "rows.npz", pids=ids)
    found = Embeddings.load(tmp_path / "rows.npz")
    assert found.people == tuple(map(str, ids.tolist()))
    assert len(set(found.pids.tolist())) == 3
