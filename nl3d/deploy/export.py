"""A network, by name, from a file or from a run, as a folder of weights or as a graph for another runtime."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from nl3d.data.clips.processor import ClipProcessor
from nl3d.deploy.formats import FORMATS, Runner
from nl3d.deploy.graph import ClipGraph
from nl3d.files import check_output, replacing
from nl3d.hub.pretrained import WEIGHTS_FILE, PretrainedMixin
from nl3d.training.checkpoint import LAST
from nl3d.training.load import load_run
from nl3d.weights.load import from_pretrained

WEIGHTS_FORMAT = "safetensors"
CHECKED_BATCHES = (1, 3, 8)
_GONE = {
    "torchscript": "PyTorch has deprecated TorchScript; take torch-export",
    "torch.jit": "PyTorch has deprecated TorchScript; take torch-export",
    "jit": "PyTorch has deprecated TorchScript; take torch-export",
    "tensorrt": "TensorRT reads ONNX; take onnx",
    "coreml": "coremltools reads torch.export; take torch-export",
}


class Exported(NamedTuple):
    """What :func:`export` wrote.

    Attributes:
        path: The file or folder.
        format: Its format.
        size: Bytes of the weights, and of the graph with them.
        departure: Largest difference from PyTorch over all checked inputs, as a share of the largest value; None for
            weights, which are not run.
    """

    path: Path
    format: str
    size: int
    departure: float | None

    def __str__(self) -> str:
        checked = "" if self.departure is None else f", within {self.departure:.1e} of PyTorch"
        return f"{self.path}: {self.format}, {self.size / 1e6:.1f} MB{checked}"


def export(
    source: str | os.PathLike[str] | nn.Module,
    path: str | Path,
    *,
    format: str | None = None,
    which: Literal["last", "best"] = "last",
    half: bool = False,
    dynamic_time: bool = False,
    uint8: bool = False,
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
    tolerance: float = 1e-4,
    overwrite: bool = False,
    **about: Any,
) -> Exported:
    """Write a network for use elsewhere. Graphs are run and compared with PyTorch before they take their name.

    The batch is free in every graph. The description of input and output travels in the file as JSON under the key
    ``nl3d``: metadata of ONNX, an extra file of torch.export, ``rt_info`` of OpenVINO.

    Args:
        source: What :func:`nl3d.from_pretrained` takes, a folder of ``nl3d train``, or a network.
        path: A file, whose suffix is the format (``.onnx``, ``.pt2`` of torch.export, ``.xml`` of OpenVINO), or a
            folder for weights as ``save_pretrained`` writes them.
        format: ``"safetensors"``, ``"onnx"``, ``"torch-export"`` or ``"openvino"``; as the path says, if left out.
        which: Of a run, the weights of the last epoch or of the best evaluation.
        half: Whether weights are written as float16, in half of the bytes; they load as float32.
        dynamic_time: Whether a graph takes any number of frames.
        uint8: Whether a graph takes ``frames`` ``(B, T, H, W, 3)`` uint8 of the network's size instead of ``clips``
            ``(B, 3, T, H, W)`` float32, and normalises them itself. Frames are RGB in both.
        num_frames: Frames of a graph's clips; the network's own if left out.
        size: Height and width of a graph's clips, in pixels; the network's own if left out.
        tolerance: Largest difference from PyTorch, as a share of the largest value of an output.
        overwrite: Whether to replace what is there.
        about: Further entries of ``pretrained_cfg``, such as ``license`` and ``description``.

    Raises:
        FileExistsError: If the output exists and ``overwrite`` is off.
        FileNotFoundError: If the source does not exist.
        ModuleNotFoundError: If the format needs a package that is not installed.
        ValueError: If the format is unknown, an option does not belong to it, the network cannot be written in it, or
            the written graph departs from PyTorch by more than ``tolerance``.
    """
    path = Path(path)
    format = _choose_format(path, format)
    if format == WEIGHTS_FORMAT:
        given = {"dynamic_time": dynamic_time, "uint8": uint8, "num_frames": num_frames, "size": size}
        if unfit := next((name for name, value in given.items() if value), None):
            raise ValueError(f"{unfit} must be left out for weights, which have no graph")
        if (path / WEIGHTS_FILE).exists() and not overwrite:
            raise FileExistsError(
                f"output {str(path / WEIGHTS_FILE)!r} exists already; choose another folder, or pass --overwrite "
                "(overwrite=True)"
            )
    else:
        if half:
            raise ValueError(f"half must be left out for {format}, whose runtimes choose their own precision")
        check_output(path, overwrite=overwrite, suffixes=FORMATS[format].suffixes[-1:])
    network = open_network(source, which)
    if about:
        network.pretrained_cfg = {**(getattr(network, "pretrained_cfg", None) or {}), **about}  # type: ignore[assignment]
    if format == WEIGHTS_FORMAT:
        return _write_weights(network, path, half=half)
    processor = ClipProcessor.of(network, num_frames=num_frames, size=size)
    graph = ClipGraph(network.float().eval(), processor, uint8=uint8)
    return _write_graph(graph, path, format, dynamic_time=dynamic_time, tolerance=tolerance)


def _choose_format(path: Path, format: str | None) -> str:
    suffixes = {known.suffixes[-1]: name for name, known in FORMATS.items()}
    said = suffixes.get(path.suffix.lower())
    known = (WEIGHTS_FORMAT, *FORMATS)
    if format is None:
        if said is None and path.suffix and not path.is_dir():
            raise ValueError(
                f"output {str(path)!r} must be a folder, or end in {', '.join(suffixes)}, which says the format"
            )
        return said or WEIGHTS_FORMAT
    if format not in known:
        hint = _GONE.get(format.lower(), f"choose from {', '.join(known)}")
        raise ValueError(f"format must be one that is written, got {format!r}: {hint}")
    if said not in (None, format):
        raise ValueError(f"format must agree with the suffix of the output, got {format!r} for {str(path)!r}")
    return format


def open_network(source: str | os.PathLike[str] | nn.Module, which: Literal["last", "best"] = "last") -> nn.Module:
    """Open a network by name, from a file or from a run; a network is copied."""
    if isinstance(source, nn.Module):
        return deepcopy(source)
    if (Path(source) / LAST).exists():
        return load_run(source if isinstance(source, str) else Path(source), which)
    return from_pretrained(source)


def _write_weights(network: nn.Module, folder: Path, *, half: bool) -> Exported:
    if not isinstance(network, PretrainedMixin):
        raise ValueError(f"network must have save_pretrained to be written as weights, got {type(network).__name__}")
    (network.half() if half else network).save_pretrained(folder)
    return Exported(folder, WEIGHTS_FORMAT, (folder / WEIGHTS_FILE).stat().st_size, None)


def _write_graph(graph: ClipGraph, path: Path, format: str, *, dynamic_time: bool, tolerance: float) -> Exported:
    """Write into a folder of its own, check, and only then put the files in place."""
    written, frames, size = FORMATS[format], graph.processor.num_frames, 0
    program = graph.trace(dynamic_time=dynamic_time)
    with torch.inference_mode():
        outputs = tuple(graph(graph.example(1, frames)))
    with TemporaryDirectory() as folder:
        made = Path(folder, path.name)
        written.write(program, made, graph.input_name, outputs, graph.describe())
        run = written.open(made)
        departure = max(_departure(run, graph, length) for length in {frames, frames + 3 * dynamic_time})
        if not departure <= tolerance:
            raise ValueError(
                f"the {format} graph must give PyTorch's answer to {tolerance:g}, but departs by {departure:.1e} of "
                "the largest value; nothing was written"
            )
        for suffix in written.suffixes:
            with replacing(path.with_suffix(suffix)) as unfinished:
                copyfile(made.with_suffix(suffix), unfinished)
            size += path.with_suffix(suffix).stat().st_size
    return Exported(path, format, size, departure)


@torch.inference_mode()
def _departure(run: Runner, graph: ClipGraph, frames: int) -> float:
    """Largest difference of any output at several batches, as a share of its largest value."""
    worst = 0.0
    for batch in CHECKED_BATCHES:
        example = graph.example(batch, frames, seed=batch)
        for own, other in zip(graph(example).values(), run(example.numpy()), strict=True):
            reference = own.numpy()
            if other.shape != reference.shape or not np.isfinite(other).all():
                return float("inf")
            worst = max(worst, float(np.abs(other - reference).max() / np.abs(reference).max()))
    return worst
