"""Rank tracklets with an exported network, without PyTorch: onnxruntime, NumPy and Pillow alone.

nl3d export bundled --output bundled.onnx
python examples/onnx_rank.py bundled.onnx people/query people/gallery --top 5

Each folder holds one folder of pictures per tracklet. The distances are those of nl3d embed and nl3d rank.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

PICTURES = (".jpg", ".jpeg", ".png")


def read_clips(folder, clip):
    """Read the consecutive clips of a tracklet: (N, 3, T, H, W) float32; the last is filled from its own start."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)[:: clip["frame_step"]]
    size, length = (clip["width"], clip["height"]), clip["num_frames"]
    images = [np.asarray(Image.open(file).convert("RGB").resize(size, Image.Resampling.BILINEAR)) for file in files]
    spans = [images[start : start + length] for start in range(0, len(images), length)]
    frames = np.stack([[span[place % len(span)] for place in range(length)] for span in spans])
    normal = (frames / 255 - np.array(clip["mean"])) / np.array(clip["std"])
    return normal.transpose(0, 4, 1, 2, 3).astype(np.float32)


def embed(session, clip, root):
    """Return the tracklets' names and the means of their clips' vectors, (N, D)."""
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir())
    run = [session.run([clip["output"]], {clip["input"]: read_clips(folder, clip)})[0] for folder in folders]
    return [folder.name for folder in folders], np.stack([vectors.mean(axis=0) for vectors in run])


def main():
    """Print the nearest tracklets of the gallery for each query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("query", type=Path)
    parser.add_argument("gallery", type=Path)
    parser.add_argument("--top", type=int, default=10)
    args = parser.parse_args()
    session = onnxruntime.InferenceSession(args.network, providers=["CPUExecutionProvider"])
    clip = json.loads(session.get_modelmeta().custom_metadata_map["nl3d"])
    queries, query = embed(session, clip, args.query)
    names, gallery = embed(session, clip, args.gallery)
    distances = np.linalg.norm(query[:, None] - gallery[None], axis=2)
    for name, row in zip(queries, distances, strict=True):
        nearest = np.argsort(row, kind="stable")[: args.top]
        print(name, *(f"{names[place]}:{row[place]:.4f}" for place in nearest))


if __name__ == "__main__":
    main()
