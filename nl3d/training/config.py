"""Everything that decides what a training run does, in one dataclass; and the two recipes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

RECIPES = ("paper", "modern")


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run. The defaults are the paper's recipe (Sec. 4.2), and :func:`recipe` gives the other one.

    What the paper leaves open (margin, smoothing, last stride, step of the decay) follows ``docs/training.md``.

    Raises:
        ValueError: If a value is out of its range, or two do not go together.
    """

    dataset: str = _option("mars", "walkers, mars, ilids-vid, prid2011, dukemtmc-videoreid, ls-vid, tree or manifest")
    root: str | None = _option(None, "folder or manifest of the data set; for walkers, where to keep frames")
    data_args: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "further arguments of the reader, or of WalkerWorld, as JSON"}
    )
    split: int = _option(0, "which of the ten splits of iLIDS-VID and PRID2011, from 0")

    model: str = _option("resnet3d50_nl", "a network of the zoo, or small_tp, small_rnn, small_ta, small_3d[_nl]")
    weights: str = _option("none", "tag of the zoo's weights to start from, or none for scratch")
    model_args: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "further arguments of the network, JSON"}
    )
    init_from: str | None = _option(None, "run to fine-tune: its best weights, all but the classifier")
    inflate_from: str | None = _option(None, "run of an image network (small_tp) whose best weights to inflate")
    last_stride: int = _option(2, "stride of the last stage; 1 keeps a finer map (3D networks)")
    head: Literal["bottleneck", "bnneck"] = _option("bottleneck", "head of 3D networks: the paper's or BNNeck")
    embedding_dim: int = _option(512, "width of the bottleneck")
    dropout: float = _option(0.5, "dropout before the classifier")

    num_frames: int = _option(8, "frames of a clip")
    frame_step: int = _option(8, "frames from one frame of a clip to the next")
    sampling: Literal["stride", "consecutive", "evenly", "restricted_random"] = _option("stride", "training clips")
    height: int = _option(256, "pixels")
    width: int = _option(128, "pixels")
    enlarge: float = _option(1.125, "factor by which a clip is enlarged before the random crop")
    flip: float = _option(0.5, "probability of a mirrored clip")
    erasing: float = _option(0.0, "probability of a random erasing, one for all frames of a clip")
    skip_unreadable: bool = _option(False, "replace unreadable frames by their neighbours and count them, not stop")
    num_workers: int = _option(4, "loader processes of each rank; 0 reads in the training process")

    num_pids: int = _option(32, "P: identities of a batch, over all ranks")
    num_tracklets: int = _option(4, "K: tracklets of each identity")
    accumulate: int = _option(1, "micro-batches of a batch; each has P / accumulate identities")
    mining: Literal["batch", "micro"] = _option(
        "batch", "with accumulate: hardest pairs of the whole batch (one more forward pass), or of each micro-batch"
    )

    margin: float = _option(0.3, "margin of the triplet loss; negative for the soft margin")
    label_smoothing: float = _option(0.1, "share of the target spread over all identities")
    triplet_on: Literal["features", "embedding"] = _option("features", "what the triplet loss compares")

    epochs: int = _option(300, "passes over all identities")
    optimizer: Literal["adam", "adamw", "sgd"] = _option("adam", "rule")
    lr: float = _option(3e-4, "learning rate")
    weight_decay: float = _option(5e-4, "added to the gradient in adam and sgd, decoupled in adamw")
    schedule: Literal["exponential", "cosine", "constant"] = _option("exponential", "course of the learning rate")
    decay_start: float = _option(0.5, "share of the epochs after which the exponential decay begins")
    final_factor: float = _option(0.001, "what the learning rate is multiplied by at the end")
    warmup: float = _option(0.0, "share of the epochs in which the learning rate rises from a hundredth")
    clip_grad: float = _option(0.0, "largest norm of the gradient; 0 for any")
    ema: float = _option(0.0, "decay of the averaged weights that are evaluated; 0 for none")

    precision: Literal["no", "bf16", "fp16"] = _option("no", "mixed precision")
    channels_last: bool = _option(False, "pixel after pixel in memory, as bf16 on CPUs and tensor cores like it")
    compile: bool = _option(False, "torch.compile")
    grad_checkpointing: bool = _option(False, "recompute activations in the backward pass to save memory")
    sync_bn: bool = _option(False, "batch norm over the batch of all ranks (GPU only)")

    eval_every: int = _option(10, "epochs from one evaluation to the next; the last epoch is always evaluated")
    eval_batch: int = _option(32, "clips that the network takes at once in evaluation")
    metric: Literal["euclidean", "cosine"] = _option("euclidean", "distance of embeddings")
    ap: Literal["auto", "interpolated", "trapezoid"] = _option("auto", "average precision; auto: the protocol's")
    checkpoint_every: int = _option(0, "steps from one checkpoint to the next; 0 for one an epoch")
    rank_timeout: float = _option(30.0, "seconds after which a process without a sign of life ends the run")
    seed: int = _option(0, "of initial weights, draws of batches, clips and augmentations")

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
        if self.init_from and self.inflate_from:
            raise ValueError("init_from and inflate_from must not both be given; a network starts from one of them")
        for item in dataclasses.fields(self):
            choices = choices_of(item)
            if choices and getattr(self, item.name) not in choices:
                raise ValueError(f"{item.name} must be one of {', '.join(choices)}, got {getattr(self, item.name)!r}")

    def to_json(self) -> str:
        """All options as JSON, in the order of the class."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: If it holds an unknown option or is no JSON object.
        """
        values = json.loads(text)
        known = {item.name for item in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) - known:
            names = sorted(set(values) - known) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"config must hold options of this version only, got {names}")
        return cls(**values)


# Each part of what an expert would change today; leave any out with its own flag.
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
    """Give the configuration of a recipe, with changes.

    ``"paper"`` is Sec. 4.2. ``"modern"`` has the last stride 1, BNNeck, random erasing, restricted random clips, AdamW
    with warm-up and cosine, clipped gradients and averaged weights; every part has its own option.

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
    """What a recipe sets differently from the class."""
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    return dict(_MODERN) if name == "modern" else {}


def choices_of(item: dataclasses.Field[Any]) -> tuple[str, ...]:
    """The values that a ``Literal`` option allows, nothing for others."""
    return _choices().get(item.name, ())


@cache
def _choices() -> dict[str, tuple[str, ...]]:
    hints = get_type_hints(TrainingConfig)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def read_config(path: Path) -> TrainingConfig:
    """Read ``config.json`` of a run.

    Raises:
        FileNotFoundError: If there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"run must hold config.json, but {str(path)!r} does not exist")
    return TrainingConfig.from_json(path.read_text())


def _check(name: str, value: float, *, low: float, high: float = float("inf")) -> None:
    if isinstance(value, bool) or not low <= value <= high:
        rule = f"at least {low}" if high == float("inf") else f"from {low} to {high}"
        raise ValueError(f"{name} must be {rule}, got {value!r}")
