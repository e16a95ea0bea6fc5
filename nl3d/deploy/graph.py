"""A network as a graph of named tensors, and the description that travels with it."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from nl3d.data.clips.processor import ClipProcessor
from nl3d.embedding.network import choose_layer
from nl3d.layers.head import ReIDOutput
from nl3d.models.fingerprint import fingerprint

TRACED_BATCH = 2
TRACED_FRAMES = 2  # more than one, or the tracer would take the axis for a constant


class ClipGraph(nn.Module):
    """A network in evaluation mode with tensors under names: ``clips`` in, ``features``, ``embedding``, ``logits`` out.

    Args:
        network: A network that takes clips and returns :class:`nl3d.ReIDOutput`, or a tensor, which is ``embedding``.
        processor: How the network wants its clips.
        uint8: Whether the input is ``frames``, pixels as decoders give them, which the graph normalises itself.

    Shape:
        - Input: ``(B, 3, T, H, W)`` float32, or with ``uint8`` ``(B, T, H, W, 3)`` uint8 of the network's size; RGB
        - Output: as of the network; ``logits`` only with a classifier
    """

    def __init__(self, network: nn.Module, processor: ClipProcessor, *, uint8: bool = False) -> None:
        super().__init__()
        self.network = network
        self.processor = processor
        self.uint8 = uint8

    @property
    def input_name(self) -> str:
        """Name of the input."""
        return "frames" if self.uint8 else "clips"

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.uint8:
            x = self.processor.normalise(x.permute(0, 4, 1, 2, 3))
        output = self.network(x)
        if not isinstance(output, ReIDOutput):
            return {"embedding": output}
        return {name: value for name, value in output._asdict().items() if value is not None}

    def example(self, batch: int, frames: int, seed: int = 0) -> Tensor:
        """Draw an input."""
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(256, (batch, frames, *self.processor.size, 3), dtype=torch.uint8, generator=generator)
        return pixels if self.uint8 else self.processor.normalise(pixels.permute(0, 4, 1, 2, 3))

    def trace(self, *, dynamic_time: bool = False) -> torch.export.ExportedProgram:
        """Trace the graph, for any number of clips.

        Args:
            dynamic_time: Whether for any number of frames too.

        Raises:
            ValueError: If the network fixes the number of frames, and ``dynamic_time`` asks for any.
        """
        axis = 1 if self.uint8 else 2
        free: dict[int, Any] = {0: torch.export.Dim("batch")}
        if dynamic_time:
            free[axis] = torch.export.Dim("time")
        clips = self.example(TRACED_BATCH, self.processor.num_frames)
        try:
            with torch.no_grad():
                return torch.export.export(self, (clips,), dynamic_shapes={"x": free})
        except torch._dynamo.exc.UserError as error:
            if not dynamic_time:
                raise
            raise ValueError(
                f"time must stay fixed for {type(self.network).__name__}, whose graph has one step per frame; leave "
                "out --dynamic-time (dynamic_time=True)"
            ) from error

    def describe(self) -> dict[str, str]:
        """Say what goes in and which output compares tracklets, as JSON under ``nl3d``."""
        processor, cfg = self.processor, getattr(self.network, "pretrained_cfg", None) or {}
        clips = {
            "input": self.input_name,
            "axes": "batch, time, height, width, RGB" if self.uint8 else "batch, RGB, time, height, width",
            "dtype": "uint8" if self.uint8 else "float32",
            "num_frames": processor.num_frames,
            "frame_step": processor.frame_step,
            "height": processor.size[0],
            "width": processor.size[1],
            "resize": "bilinear, antialiased",
            "mean": None if self.uint8 else processor.mean,
            "std": None if self.uint8 else processor.std,
            "output": choose_layer(self.network) if hasattr(self.network, "head") else "embedding",
            "network": fingerprint(self.network),
            "license": cfg.get("license"),
            "description": cfg.get("description"),
        }
        return {"nl3d": json.dumps({key: value for key, value in clips.items() if value is not None})}
