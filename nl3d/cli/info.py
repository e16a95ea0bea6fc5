"""``nl3d info``: what a network or a file of embeddings is."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from nl3d.embedding.embeddings import Embeddings

DESCRIPTION = """\
Describe a network (parameters, operations per clip, clips, preprocessing, licence, origin) or a file of embeddings
(what made it, counts, labels)."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("info", help="what a network or a file is", description=DESCRIPTION)
    parser.add_argument("source", metavar="SOURCE", help="bundled, NETWORK/WEIGHTS, a folder, a file, hf-hub:, a run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    told = describe(args.source)
    if args.json:
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        return
    width = max(map(len, told))
    for name, value in told.items():
        text = (
            f"{value:,}" if isinstance(value, int) else " ".join(map(str, value)) if isinstance(value, list) else value
        )
        sys.stdout.write(f"{name:<{width}}  {text}\n")


def describe(source: str) -> dict[str, Any]:
    """Describe what a name, a file or a folder holds, as plain data.

    Raises:
        FileNotFoundError: If there is no such thing.
        ValueError: If it is neither a network nor a file of embeddings.
    """
    from nl3d.deploy.export import open_network
    from nl3d.embedding.embeddings import Embeddings
    from nl3d.embedding.vector_files import READERS

    if Path(source).suffix.lower() in READERS and Path(source).exists():
        try:
            return _of_embeddings(Embeddings.open(source))
        except ValueError as refusal:  # a file of weights may bear the same suffix
            try:
                return _of_network(open_network(source))
            except ValueError as other:
                raise ValueError(f"{source!r} must hold embeddings or a network: {refusal}; {other}") from None
    return _of_network(open_network(source))


def _of_network(network: nn.Module) -> dict[str, Any]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from nl3d.data.clips.processor import ClipProcessor
    from nl3d.embedding.network import choose_layer
    from nl3d.models.fingerprint import fingerprint

    cfg: Any = network.pretrained_cfg
    processor = ClipProcessor.of(network)
    height, width = processor.size
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, processor.num_frames, *processor.size))
    told = {
        "network": cfg.get("architecture") or type(network).__name__,
        "weights": cfg.get("tag"),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "operations per clip": counter.get_total_flops(),
        "clip": f"{processor.num_frames} frames of {height}x{width}, every {processor.frame_step}",
        "order of colours": "RGB",
        "mean": list(processor.mean),
        "deviation": list(processor.std),
        "features": getattr(network, "num_features", None),
        "embedding": getattr(network, "embedding_dim", None),
        "classes": getattr(network, "num_classes", None),
        "compared by": choose_layer(network),
        "not from a checkpoint": list(getattr(network, "new_tensors", None) or ()),
        "licence": cfg.get("license"),
        "description": cfg.get("description"),
        "origin": cfg.get("origin_url"),
        "fingerprint": fingerprint(network),
    }
    return {name: value for name, value in told.items() if value not in (None, [])}


def _of_embeddings(embeddings: Embeddings) -> dict[str, Any]:
    known = {"people": embeddings.people, "cameras": embeddings.cameras}
    told = {
        "embeddings": len(embeddings),
        "width": embeddings.shape[1],
        **{name: len({*labels} - {None}) for name, labels in known.items() if labels is not None},
        **{f"without {name}": sum(label is None for label in labels) for name, labels in known.items() if labels},
    }
    made = {name: value for name, value in embeddings.metadata.items() if value}
    for name in ("preprocessing", "notes", "box_options"):  # JSON in the file, data in our output
        if name in made:
            told_parts = json.loads(made.pop(name))
            made |= {f"{name}: {key}": value for key, value in told_parts.items() if value not in (None, [], {}, 0)}
    return told | made
