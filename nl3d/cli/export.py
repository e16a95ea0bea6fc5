"""``nl3d export``: a network as a folder of weights, or as a graph for another runtime."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from nl3d.cli.options import positive, size

DESCRIPTION = """\
Write a network for use elsewhere. The suffix of the output is the format: .onnx, .pt2 (torch.export), .xml (OpenVINO).
Without one it is a folder of weights, which nl3d embed --weights, nl3d.from_pretrained and timm read. Graphs take
any number of clips, describe their input in their metadata, and are compared with PyTorch before they are put in place.
Of a run, the network is written without the classifier of its training people."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("export", help="a network as weights, ONNX and more", description=DESCRIPTION)
    parser.add_argument(
        "source", metavar="SOURCE", help="bundled, NETWORK/WEIGHTS, a folder, a file, hf-hub:, or a run"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="PATH", help="file or folder to write")
    parser.add_argument("--format", help="safetensors, onnx, torch-export or openvino (as the output's suffix says)")
    parser.add_argument(
        "--which", choices=("last", "best"), default="last", help="weights of which epoch of a run (%(default)s)"
    )
    parser.add_argument("--half", action="store_true", help="weights in float16, in half of the bytes")
    parser.add_argument("--license", help="SPDX identifier of the weights' licence (as recorded)")
    parser.add_argument("--description", help="what the weights were trained on (as recorded)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    graph = parser.add_argument_group("graphs")
    graph.add_argument("--dynamic-time", action="store_true", help="take any number of frames")
    graph.add_argument("--uint8", action="store_true", help="take frames (B,T,H,W,3) in uint8, normalised by the graph")
    graph.add_argument("--num-frames", type=positive, metavar="T", help="frames per clip (the network's own)")
    graph.add_argument("--size", type=size, metavar="HxW", help="height and width in pixels (the network's own)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from nl3d.deploy.export import export

    names = ("format", "which", "half", "overwrite", "dynamic_time", "uint8", "num_frames", "size")
    about = {name: value for name in ("license", "description") if (value := getattr(args, name))}
    sys.stdout.write(f"{export(args.source, args.output, **{name: getattr(args, name) for name in names}, **about)}\n")
