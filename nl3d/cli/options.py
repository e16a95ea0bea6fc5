"""Options that several commands share, and building the network that they describe."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

DEFAULT_MODEL = "resnet3d50_nl"


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the network that embeds, and for how it is used."""
    group = parser.add_argument_group("network")
    group.add_argument("--model", help="architecture, see nl3d list (the bundled one, or resnet3d50_nl with --weights)")
    group.add_argument(
        "--weights",
        help="a name from nl3d list, a file, hf-hub:org/name, or none for a network drawn from a seed "
        "(bundled, or imagenet with another --model)",
    )
    group.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="clips per forward pass (%(default)s)"
    )
    group.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="processes that decode beside the network (the spare cores, at most 8)",
    )
    group.add_argument("--num-frames", type=positive, metavar="T", help="frames per clip (the network's own)")
    group.add_argument(
        "--frame-step",
        type=positive,
        metavar="S",
        help="frames from one frame of a clip to the next (the network's own)",
    )
    group.add_argument(
        "--size", type=size, metavar="HxW", help="height and width of a frame in pixels (the network's own)"
    )
    group.add_argument("--amp", action="store_true", help="run under autocast, in half precision where that is safe")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    group.add_argument(
        "--output-layer",
        choices=("auto", "features", "embedding"),
        default="auto",
        help="auto is the embedding if the weights filled the layer that makes it, else the pooled features",
    )


def build_model(args: argparse.Namespace) -> nn.Module:
    """Build the network that the options describe."""
    import nl3d
    from nl3d.embedding.network import SEED, pick_device, seeded

    model, weights = choose_network(args)
    models = nl3d.list_models()
    if args.model is None and model not in models:
        pick_device(args.device)
        return nl3d.from_pretrained(weights, num_classes=0)  # an architecture of its own, as its config describes it
    if model not in models:
        raise ValueError(f"unknown model {model!r}; choose from: {', '.join(models)}")
    pick_device(args.device)
    factory = getattr(nl3d, model)
    if weights != "none":
        return factory(weights)
    note(f"weights are none: {model} is drawn from seed {SEED} and has not learnt to tell people apart")
    return seeded(factory)


def choose_network(args: argparse.Namespace) -> tuple[str, str]:
    """Resolve model and weights; each supplies the other's default."""
    from nl3d.weights.open import BUNDLED_MODEL, open_own_weights
    from nl3d.weights.records import has_spec

    model = args.model or (BUNDLED_MODEL if args.weights is None else DEFAULT_MODEL)
    if args.weights and not args.model and (own := open_own_weights(args.weights)):
        model = str(own.config["architecture"])
    return model, args.weights or ("bundled" if has_spec(model, "bundled") else "imagenet")


def embed_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keywords of :func:`nl3d.embed` that the options set."""
    model, weights = choose_network(args)
    return {
        "num_frames": args.num_frames,
        "frame_step": args.frame_step,
        "size": args.size,
        "batch_size": args.batch_size,
        "workers": args.workers,
        "device": args.device,
        "amp": args.amp,
        "output_layer": args.output_layer,
        "labels": {"model": model, "weights": weights},
    }


def note(text: str) -> None:
    """Write a remark to standard error, apart from the results."""
    sys.stderr.write(f"nl3d: {text}\n")


def positive(text: str) -> int:
    """Parse a whole number, at least 1."""
    return count(text, least=1)


def count(text: str, least: int = 0) -> int:
    """Parse a whole number, at least 0."""
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"must be a whole number, at least {least}, got {text!r}")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """Parse ``HEIGHTxWIDTH``."""
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH in pixels, such as 256x128, got {text!r}")
    return int(height), int(width)
