"""All options of a training run in one dataclass, the two recipes, and the command line made of them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

RECIPES = ("paper", "modern")


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run. The defaults are the paper's recipe (Sec. 4.2); :func:`recipe` gives the other one.

    What the paper leaves open (margin, smoothing, last stride, step of the decay) follows ``docs/training.md``.

    Raises:
        ValueError: If a value is out of its range, or two contradict each other.
    """

    dataset: str = _option("mars", "data set: walkers, or a reader such as mars, ilids-vid, tree, manifest")
    root: str | None = _option(None, "folder or manifest of the data set; for walkers, folder to keep frames in")
    data_args: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "further arguments of the reader, or of WalkerWorld, as JSON"}
    )
    split: int = _option(0, "which of the ten splits of iLIDS-VID and PRID2011, from 0")

    model: str = _option(
        "resnet3d50_nl", "network of nl3d list, inflated:NAME for a network of timm, or small_{tp,rnn,ta,3d,3d_nl}"
    )
    weights: str = _option(
        "none",
        "weights to start from: none; a name of nl3d list; or, to fine-tune all but the classifier, bundled, a run, an "
        "exported folder or file, or hf-hub:org/name; the defaults are then its network and clips",
    )
    model_args: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "further arguments of the network, as JSON"}
    )
    inflate_from: str | None = _option(None, "run of an image network (small_tp); its best weights are inflated")
    last_stride: int = _option(2, "stride of the last stage; 1 keeps a finer map (3D networks)")
    head: Literal["bottleneck", "bnneck"] = _option("bottleneck", "head of 3D networks: the paper's, or BNNeck")
    embedding_dim: int = _option(512, "width of the bottleneck")
    dropout: float = _option(0.5, "dropout before the classifier")

    num_frames: int = _option(8, "frames per clip")
    frame_step: int = _option(8, "distance of two neighbouring frames of a clip, in frames")
    sampling: Literal["stride", "consecutive", "evenly", "restricted_random"] = _option("stride", "training clips")
    height: int = _option(256, "height of a frame, in pixels")
    width: int = _option(128, "width of a frame, in pixels")
    sizes: str = _option(
        "", "sizes of training clips, one drawn per batch, such as 64x32,96x48,128x64; empty for height and width alone"
    )
    enlarge: float = _option(1.125, "factor by which a clip is enlarged before the random crop")
    flip: float = _option(0.5, "probability of mirroring a clip")
    erasing: float = _option(0.0, "probability of erasing a random rectangle, the same in all frames of a clip")
    skip_unreadable: bool = _option(False, "replace unreadable frames by neighbours and count them, do not stop")
    num_workers: int = _option(4, "loader processes per rank; 0 reads in the training process")

    num_pids: int = _option(32, "P: identities per batch, over all ranks")
    num_tracklets: int = _option(4, "K: tracklets per identity")
    accumulate: int = _option(1, "micro-batches per batch; each has P / accumulate identities")
    mining: Literal["batch", "micro"] = _option(
        "batch", "with accumulate: hardest pairs of the whole batch (one more forward pass), or of each micro-batch"
    )

    margin: float = _option(0.3, "margin of the triplet loss; negative for the soft margin")
    label_smoothing: float = _option(0.1, "share of the target spread over all identities")
    triplet_on: Literal["features", "embedding"] = _option("features", "vectors that the triplet loss compares")

    epochs: int = _option(300, "passes over all identities")
    optimizer: Literal["adam", "adamw", "sgd"] = _option("adam", "optimiser")
    lr: float = _option(3e-4, "learning rate")
    weight_decay: float = _option(5e-4, "added to the gradient in adam and sgd, decoupled in adamw")
    schedule: Literal["exponential", "cosine", "constant"] = _option("exponential", "schedule of the learning rate")
    decay_start: float = _option(0.5, "share of the epochs after which the exponential decay begins")
    final_factor: float = _option(0.001, "factor of the learning rate at the end")
    warmup: float = _option(0.0, "share of the epochs in which the learning rate rises from a hundredth")
    clip_grad: float = _option(0.0, "largest norm of the gradient; 0 for no limit")
    ema: float = _option(0.0, "decay of the averaged weights that are evaluated; 0 for no average")

    precision: Literal["no", "bf16", "fp16"] = _option("no", "mixed precision")
    channels_last: bool = _option(False, "channels-last memory layout, faster in bf16 on CPUs and on tensor cores")
    compile: bool = _option(False, "torch.compile")
    grad_checkpointing: bool = _option(False, "recompute activations in the backward pass to save memory")
    sync_bn: bool = _option(False, "batch norm over the batch of all ranks (GPU only)")

    eval_every: int = _option(10, "epochs between two evaluations; the last epoch is always evaluated")
    eval_batch: int = _option(32, "clips per batch in evaluation")
    metric: Literal["euclidean", "cosine"] = _option("euclidean", "distance of embeddings")
    ap: Literal["auto", "interpolated", "trapezoid"] = _option("auto", "average precision; auto: the protocol's")
    checkpoint_every: int = _option(0, "steps between two checkpoints; 0 for one per epoch")
    rank_timeout: float = _option(30.0, "seconds after which a process without a sign of life ends the run")
    seed: int = _option(0, "seed of initial weights, batches, clips and augmentations")

    def __post_init__(self) -> None:
        for name in (
            "num_frames", "frame_step", "height", "width", "last_stride", "embedding_dim", "accumulate", "epochs",
            "eval_every", "eval_batch",
        ):  # fmt: skip
            _check(name, getattr(self, name), low=1)
        for name in ("num_pids", "num_tracklets"):
            _check(name, getattr(self, name), low=2)
        for name in ("split", "num_workers", "checkpoint_every", "seed", "weight_decay", "clip_grad"):
            _check(name, getattr(self, name), low=0)
        for name in ("flip", "erasing", "decay_start", "warmup"):
            _check(name, getattr(self, name), low=0, high=1)
        for name in ("lr", "final_factor", "rank_timeout"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, got {self.ema}")
        if self.enlarge < 1:
            raise ValueError(f"enlarge must be at least 1, got {self.enlarge}")
        if self.num_pids % self.accumulate or (self.mining == "micro" and self.num_pids // self.accumulate < 2):
            raise ValueError(
                f"accumulate must divide num_pids={self.num_pids} and leave two to mine in, got {self.accumulate}"
            )
        self.training_sizes()
        if self.weights != "none" and self.inflate_from:
            raise ValueError("weights and inflate_from must not both be given; a network starts from one of them")
        for item in dataclasses.fields(self):
            choices = choices_of(item)
            if choices and getattr(self, item.name) not in choices:
                raise ValueError(f"{item.name} must be one of {', '.join(choices)}, got {getattr(self, item.name)!r}")

    def training_sizes(self) -> list[tuple[int, int]]:
        """Return the heights and widths of training clips; tests have ``height`` and ``width``.

        Raises:
            ValueError: If ``sizes`` are no sizes.
        """
        if not self.sizes:
            return [(self.height, self.width)]
        found = [re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text.strip()) for text in self.sizes.split(",")]
        if None in found:
            raise ValueError(f"sizes must be HxW separated by commas, such as '64x32,96x48', got {self.sizes!r}")
        return [(int(match[1]), int(match[2])) for match in found if match]

    def to_json(self) -> str:
        """Return all options as JSON, in the order of the class."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: If the text is no JSON object, or holds an unknown option.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ValueError(f"config must be JSON, got {text[:40]!r}: {error}") from None
        known = {item.name for item in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) - known:
            names = sorted(set(values) - known) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"config must hold options of this version only, got {names}")
        return cls(**values)


# Today's practice; each part can be left out by its own option.
_MODERN: dict[str, Any] = {
    "last_stride": 1,
    "head": "bnneck",
    "sampling": "restricted_random",
    "erasing": 0.5,
    "optimizer": "adamw",
    "lr": 3.5e-4,
    "weight_decay": 0.01,
    "epochs": 150,
    "schedule": "cosine",
    "warmup": 0.07,
    "ema": 0.999,
    "clip_grad": 5.0,
}


def recipe(name: str, **changes: Any) -> TrainingConfig:
    """Return the configuration of a recipe, with changes.

    ``"paper"`` is Sec. 4.2. ``"modern"`` has last stride 1, BNNeck, random erasing, restricted random clips, AdamW with
    warm-up and cosine schedule, clipped gradients and averaged weights. Each part has its own option.

    Args:
        name: ``"paper"`` or ``"modern"``.
        changes: Options that differ from the recipe.

    Raises:
        ValueError: If the recipe is unknown or a value is refused.
        TypeError: If an option is unknown.

    Example:
        >>> recipe("modern", epochs=60).schedule, recipe("paper").schedule
        ('cosine', 'exponential')
    """
    return TrainingConfig(**{**recipe_values(name), **changes})


def recipe_values(name: str) -> dict[str, Any]:
    """Return the options in which a recipe differs from the class."""
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    return dict(_MODERN) if name == "modern" else {}


def choices_of(item: dataclasses.Field[Any]) -> tuple[str, ...]:
    """Return the values that a ``Literal`` option allows, nothing for other options."""
    return _choices().get(item.name, ())


@cache
def _choices() -> dict[str, tuple[str, ...]]:
    hints = get_type_hints(TrainingConfig)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def read_config(path: Path) -> TrainingConfig:
    """Read ``config.json`` of a run."""
    if not path.is_file():
        raise FileNotFoundError(f"run must hold config.json, but {str(path)!r} does not exist")
    return TrainingConfig.from_json(path.read_text())


def _check(name: str, value: float, *, low: float, high: float = float("inf")) -> None:
    if isinstance(value, bool) or not low <= value <= high:
        rule = f"at least {low}" if high == float("inf") else f"from {low} to {high}"
        raise ValueError(f"{name} must be {rule}, got {value!r}")


def add_options(parser: argparse.ArgumentParser, *, leave_out: Sequence[str] = ()) -> None:
    """Add ``--recipe`` and one flag per option of :class:`TrainingConfig`; ``--help`` shows the paper's defaults."""
    parser.add_argument("--recipe", choices=RECIPES, default="paper", help="where all other defaults come from")
    group = parser.add_argument_group(
        "configuration", "defaults of the recipe 'paper'; 'modern' changes: " + _changes()
    )
    for item in dataclasses.fields(TrainingConfig):
        if item.name in leave_out:
            continue
        default = item.default if item.default is not dataclasses.MISSING else {}
        flag = "--" + item.name.replace("_", "-")
        text = f"{item.metadata['help']} (default: {'off' if default is False else default})".replace("%", "%%")
        options: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS, "help": text}
        if isinstance(default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        elif isinstance(default, dict):
            group.add_argument(flag, type=_json_object, metavar="JSON", **options)
        elif choices_of(item):
            group.add_argument(flag, choices=choices_of(item), **options)
        else:
            kind = str if default is None else type(default)
            group.add_argument(flag, type=kind, metavar=kind.__name__.upper(), **options)


def config_from(
    arguments: argparse.Namespace, *, defaults: Mapping[str, Any] | None = None, **changes: Any
) -> TrainingConfig:
    """Return the configuration of parsed arguments: recipe, then ``defaults``, then given flags, then ``changes``."""
    known = {item.name for item in dataclasses.fields(TrainingConfig)}
    given = {name: value for name, value in vars(arguments).items() if name in known}
    return TrainingConfig(**{**recipe_values(arguments.recipe), **(defaults or {}), **given, **changes})


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"must be JSON such as '{{\"size\": [64, 32]}}', got {text!r}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object, got {text!r}")
    return value


def _changes() -> str:
    return ", ".join(f"{name} {value}" for name, value in recipe_values("modern").items())
