"""Valid small files of every kind that nl3d reads, and what reads each, for :mod:`tests.fuzz`."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import av  # noqa: F401 - the same
import faiss  # noqa: F401
import h5py
import numpy as np
import scipy.io
import scipy.sparse
import torch
from PIL import Image

import nl3d
from nl3d.cli import main
from nl3d.data.readers.matfiles import read_mat
from nl3d.models.resnet3d import ResNet3d
from nl3d.training.config import TrainingConfig
from nl3d.training.load import load_run
from nl3d.training.run import run_training
from tests.data.films import film, write_boxes, write_greys, write_video
from tests.data.pictures import write_jpeg
from tests.embedding.people import TinyNet, embeddings
from tests.training.toys import toy_config

Kinds = dict[str, tuple[Path, Callable[[Path], object]]]
"""Per kind the file to damage, and what reads it; what is raised other than a refusal is a fault."""


def command(*arguments: object) -> None:
    """Run a command of nl3d in this process; exit status 2 is a refusal."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):  # noqa: PTH123
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
    if status == 2:
        raise ValueError("refused")
    if status:
        raise AssertionError(f"exit status {status}")


def embed(source: Path, **options: object) -> object:
    """Embed by a network that gives mean colours."""
    return nl3d.embed(source, TinyNet().eval(), progress=False, output_layer="features", workers=0, **options)


def make_kinds(folder: Path) -> Kinds:
    """Write one valid file of each kind."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in nl3d.__all__:
        getattr(nl3d, name)  # imported once, not in each case
    parts = (checkpoints, runs, vectors, tables, pictures, boxes, matlab)
    return {name: kind for part in parts for name, kind in part(folder).items()}


def checkpoints(folder: Path) -> Kinds:
    """State dicts in each container, and a saved network's configuration."""
    network = ResNet3d(block="basic", block_counts=(1, 1, 1, 1), base_width=4)
    tensors = network.state_dict()
    torch.save({"state_dict": tensors, "epoch": 3}, folder / "zip.pth")
    torch.save({"state_dict": tensors}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    (folder / "plain.pkl").write_bytes(pickle.dumps({"blobs": arrays}, protocol=2))
    network.save_pretrained(folder / "saved")
    model = folder / "saved" / "model.safetensors"
    kinds: Kinds = {name: (folder / name, nl3d.from_checkpoint) for name in ("zip.pth", "legacy.pth", "plain.pkl")}
    kinds["model.safetensors"] = model, nl3d.from_checkpoint
    kinds["config.json"] = model.with_name("config.json"), lambda path: nl3d.from_pretrained(path.parent)
    return kinds


def runs(folder: Path) -> Kinds:
    """Files of a training run: what it resumes from, what networks are read from, its result and configuration."""
    config = toy_config(epochs=1, eval_every=1)
    run_training(config, folder / "run", board=False)
    resumed = shutil.copytree(folder / "run", folder / "resumed")
    (folder / "recipe.json").write_text(config.to_json())

    def resume(path: Path) -> None:
        path.with_name("result.json").unlink(missing_ok=True)
        run_training(config, path.parent, board=False)

    return {
        "last.safetensors": (resumed / "last.safetensors", resume),
        "run": (folder / "run" / "last.safetensors", lambda path: load_run(path.parent)),
        "result.json": (folder / "run" / "result.json", lambda path: run_training(config, path.parent, board=False)),
        "recipe.json": (folder / "recipe.json", lambda path: TrainingConfig.from_json(path.read_text())),
    }


def vectors(folder: Path) -> Kinds:
    """Embeddings in each format, their labels, and an index."""
    people = embeddings(torch.randn(6, 4), pids=torch.tensor([1, 1, 2, 2, 3, -1]), camids=torch.tensor([1, 2] * 3))
    own, labels, index = folder / "own.safetensors", folder / "labels.csv", folder / "own.index"
    people.save(own)
    people.save(folder / "own.npz")
    columns = {"embeddings": people.embeddings, "pids": people.pids, "camids": people.camids}
    arrays = {name: values.numpy() for name, values in columns.items()}
    np.savez(folder / "other.npz", names=np.array(people.names), **arrays)
    np.save(folder / "other.npy", arrays["embeddings"])
    torch.save({**columns, "names": list(people.names)}, folder / "other.pt")
    rows = [f"{name},{pid},{cam}" for name, pid, cam in zip(people.names, [1, 1, 2, 2, 3, -1], [1, 2] * 3, strict=True)]
    labels.write_text("\n".join(["tracklet,pid,camid", *rows]) + "\n")

    def search(path: Path) -> None:
        command("rank", own, own, "--top", "2", "--index", "faiss", "--index-kind", path.stem, "--index-file", path)

    kinds: Kinds = {
        name: (folder / name, lambda path: command("evaluate", path))
        for name in ("own.safetensors", "own.npz", "other.npz", "other.pt")
    }
    for kind in ("flat", "hnsw"):
        index = folder / f"{kind}.index"
        search(index)
        kinds[index.name] = index, search
    return {
        **kinds,
        "labels.csv": (labels, lambda path: command("evaluate", own, "--labels", path)),
        "other.npy": (folder / "other.npy", lambda path: command("evaluate", path, "--labels", labels)),
        "rank": (own, lambda path: command("rank", path, path, "--top", "2")),
    }


def tables(folder: Path) -> Kinds:
    """Tables of frames."""
    for number in range(1, 5):
        write_jpeg(folder / "frames" / f"{number:06d}.jpg", (40 * number, 90, 30), (48, 64))
    rows = [f"frames/{n:06d}.jpg,{n % 2},{n % 2 + 1},{'ab'[n % 2]},query,{n}" for n in range(1, 5)]
    table = folder / "table.csv"
    table.write_text("\n".join(["path,pid,camid,tracklet,part,frame", *rows]) + "\n")
    return {"table.csv": (table, embed), "manifest.csv": (table, nl3d.data.read_manifest)}


def pictures(folder: Path) -> Kinds:
    """Images, each in a table of its own, and videos."""
    kinds: Kinds = {}
    for suffix in ("jpg", "png", "webp"):
        image, table = folder / f"image.{suffix}", folder / f"{suffix}.csv"
        Image.fromarray(film(1)[0]).save(image)
        table.write_text(f"path\n{image.name}\n")
        kinds[image.name] = image, lambda path, table=table: embed(table)
    tracks = write_boxes(folder / "film.txt", [(frame, 1, 5, 4, 12, 30) for frame in range(1, 5)])
    write_video(folder / "film.mkv", film(4))
    write_greys(folder / "film.mp4", "libx264", frames=4)
    write_greys(folder / "film.avi", "mpeg4", frames=4)
    for name in ("film.mkv", "film.mp4", "film.avi"):
        kinds[name] = folder / name, lambda path: embed(path, tracks=tracks)
        kinds[f"{name} skipped"] = folder / name, lambda path: embed(path, tracks=tracks, skip_unreadable=True)
    return kinds


BOXES = {
    "mot": "{frame},{track},5.5,4,12,30,0.9,-1,-1,-1",
    "mot-gt": "{frame},{track},5,4,12,30,1,1,0.8",
    "visdrone": "{frame},{track},5,4,12,30,1,1,0,0",
    "kitti": "{frame} {track} Pedestrian 0 0 -1.5 5 4 17 34 1.8 0.5 0.9 2.0 1.5 9.1 0.1",
    "cvat": '<box frame="{frame}" xtl="5" ytl="4" xbr="17" ybr="34" outside="0" occluded="0" keyframe="1"></box>',
    "ultralytics": "0 0.3 0.4 0.2 0.5 {track}",
}


def boxes(folder: Path) -> Kinds:
    """Boxes of each format over the frames of the table."""
    kinds: Kinds = {}
    for form, line in BOXES.items():
        lines = [line.format(frame=frame, track=frame // 3) for frame in range(1, 5)]
        path = folder / f"boxes-{form}.txt"
        if form == "cvat":
            lines = ["<annotations>", '<track id="1" label="person">', *lines, "</track>", "</annotations>"]
        if form == "ultralytics":
            path = folder / "labels" / "film_2.txt"
            path.parent.mkdir()
            lines = lines[1:3]
        path.write_text("\n".join(lines) + "\n")
        options = nl3d.data.BoxOptions(form)

        def read(path: Path, options: nl3d.data.BoxOptions = options) -> None:
            tracks = path.parent if path.parent.name == "labels" else path
            embed(folder / "frames", tracks=tracks, boxes=options)

        kinds[f"boxes {form}"] = path, read
    kinds["boxes"] = folder / "boxes-mot.txt", lambda path: embed(folder / "frames", tracks=path)
    return kinds


def matlab(folder: Path) -> Kinds:
    """MATLAB's files of each version."""
    table = np.array([[1, 4, 1, 1], [5, 8, 2, 2]])
    others = {"sparse": scipy.sparse.csc_matrix(np.eye(3)), "text": "abc", "record": {"one": 1.0}}
    scipy.io.savemat(folder / "plain.mat", {"table": table})
    scipy.io.savemat(folder / "old.mat", {"table": table}, format="4")
    scipy.io.savemat(folder / "many.mat", {**others, "table": table}, do_compression=True)
    with h5py.File(folder / "hdf5.mat", "w") as file:
        file["table"] = table.T.astype(float)
    return {
        name: (folder / name, lambda path: read_mat(path, "table"))
        for name in ("plain.mat", "old.mat", "many.mat", "hdf5.mat")
    }
