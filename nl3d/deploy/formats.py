"""Formats of other runtimes: how each is written, and how it is run to check it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

Array: TypeAlias = "np.ndarray[Any, Any]"
Runner: TypeAlias = Callable[[Array], Sequence[Array]]


@dataclass(frozen=True)
class Format:
    """A format of graphs.

    Attributes:
        suffixes: Suffixes of its files, the one that is named last: it reads the others.
        write: Writes a traced graph, given the names of input and outputs and the description.
        open: Returns a function that runs a written file.
    """

    suffixes: tuple[str, ...]
    write: Callable[[torch.export.ExportedProgram, Path, str, Sequence[str], Mapping[str, str]], None]
    open: Callable[[Path], Runner]


def _write_onnx(
    program: torch.export.ExportedProgram, path: Path, name: str, outputs: Sequence[str], about: Mapping[str, str]
) -> None:
    onnx, _ = _need("onnx", "onnx"), _need("onnxscript", "onnx")
    with _quiet():
        written = torch.onnx.export(
            program, dynamo=True, input_names=[name], output_names=list(outputs), verbose=False, optimize=True
        )
    assert written is not None
    model = written.model_proto
    for place, axis in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        if axis.dim_param:
            axis.dim_param = "time" if place else "batch"
    onnx.helper.set_model_props(model, dict(about))
    onnx.save_model(model, path)


def _open_onnx(path: Path) -> Runner:
    session = _need("onnxruntime", "onnx").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (single,) = session.get_inputs()
    return lambda array: session.run(None, {single.name: array})


def _write_program(
    program: torch.export.ExportedProgram, path: Path, name: str, outputs: Sequence[str], about: Mapping[str, str]
) -> None:
    torch.export.save(program, path, extra_files=dict(about))


def _open_program(path: Path) -> Runner:
    module = torch.export.load(path).module()

    def run(array: Array) -> list[Array]:
        with torch.inference_mode():
            return [value.numpy() for value in module(torch.from_numpy(array)).values()]

    return run


def _write_openvino(
    program: torch.export.ExportedProgram, path: Path, name: str, outputs: Sequence[str], about: Mapping[str, str]
) -> None:
    openvino, graph = _need("openvino", "openvino"), path.with_suffix(".onnx")
    # By way of ONNX, whose reader keeps the free axes and covers every operation of these networks.
    _write_onnx(program, graph, name, outputs, about)
    model = openvino.Core().read_model(graph)
    for key, value in about.items():
        model.set_rt_info(value, [key])
    openvino.save_model(model, path, compress_to_fp16=False)


def _open_openvino(path: Path) -> Runner:
    openvino = _need("openvino", "openvino")
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda array: list(compiled(array).to_tuple())


FORMATS = {
    "onnx": Format((".onnx",), _write_onnx, _open_onnx),
    "torch-export": Format((".pt2",), _write_program, _open_program),
    "openvino": Format((".bin", ".xml"), _write_openvino, _open_openvino),
}


def _need(module: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ModuleNotFoundError(
            f"{module} is needed for this format; install it with: pip install 'nl3d[{extra}]'", name=module
        ) from None


@contextmanager
def _quiet() -> Any:
    """Keep the converters' own warnings from the user, who can do nothing about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
