"""The table of checkpoints: one frozen record each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

FACTORIES = (
    *(f"resnet3d{depth}{blocks}" for depth in (18, 34, 50, 101) for blocks in ("", "_nl")),
    *(f"resnet50_{aggregation}" for aggregation in ("tp", "rnn", "ta")),
)


@dataclass(frozen=True, kw_only=True)
class WeightsSpec:
    """One published checkpoint: where it lives, what it expects, where it came from.

    Attributes:
        name: What ``weights=`` calls it.
        models: Factories that it can start.
        repo_id: Repository on the Hugging Face Hub, or ``None`` where the Hub has no copy.
        filename: File within it.
        revision: Full commit hash, for a branch could move under the user; or, where only its first digits are known,
            at least seven of them, which are completed from the repository's history.
        family: Whose names and shapes it bears.
        clip_size: ``(T, H, W)`` in frames and pixels of the clips that the network expects.
        frame_step: Frames between two frames of a clip.
        mean: Mean of each RGB channel in [0, 1], subtracted.
        std: Deviation of each RGB channel, by which is divided.
        license: SPDX identifier.
        origin: Who trained it, and on what.
        accuracy: What its publisher measured.
        url: Where it lies if not on the Hub; such a file is fetched by hand.
        sha256: What its bytes hash to, checked on download; ``None`` where nobody published it.
        layout_proven: What shows that the converted network computes what the original computed.
        download_exercised: Against what the download has been tried.
    """

    name: str
    models: tuple[str, ...]
    repo_id: str | None = None
    filename: str = "model.safetensors"
    revision: str | None = None
    family: str
    clip_size: tuple[int, int, int]
    frame_step: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    license: str
    origin: str
    accuracy: str
    url: str | None = None
    sha256: str | None = None
    layout_proven: str
    download_exercised: str

    def __post_init__(self) -> None:
        if not (self.repo_id and self.revision) and not (self.url and self.sha256):
            raise ValueError(f"repo_id and revision, or url and sha256, must say where {self.name!r} lies, got neither")


def _imagenet(depth: int, *, revision: str, top1: float, sha256: str | None = None) -> WeightsSpec:
    framewise = ("resnet50_tp", "resnet50_rnn", "resnet50_ta") if depth == 50 else ()
    return WeightsSpec(
        name="imagenet",
        models=(f"resnet3d{depth}", f"resnet3d{depth}_nl", *framewise),
        repo_id=f"timm/resnet{depth}.tv_in1k",
        revision=revision,
        family="timm",
        clip_size=(8, 256, 128),  # the paper's (Sec. 4.2); images have none
        frame_step=1,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        license="BSD-3-Clause",
        origin=f"torchvision's ResNet-{depth}, trained on ImageNet-1k; image weights, inflated on load",
        accuracy=f"ImageNet-1k top-1 {top1:.2f} % as an image network",
        sha256=sha256,
        layout_proven="a still clip equals timm's image network (tests/zoo/test_from_2d.py)",
        download_exercised="local server only",
    )


WEIGHTS: tuple[WeightsSpec, ...] = (
    _imagenet(
        18,
        revision="590dfdd48494d2316a8385e1ca7fbec3b9359b35",
        sha256="694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
        top1=69.758,
    ),
    _imagenet(
        34,
        revision="c983eba7f5e69bc3548a626d1b0b0b914e5de3a6",
        top1=73.314,
    ),
    _imagenet(
        50,
        revision="78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
        sha256="5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
        top1=76.130,
    ),
    _imagenet(
        101,
        revision="54887a0",  # the rest of the hash is on no page that could be read; completed on download
        top1=77.374,
    ),
)


def list_models(filter: str = "*") -> list[str]:
    """Names of the networks that can be built, by ``nl3d.<name>()`` or ``timm.create_model(name)``.

    Args:
        filter: Pattern with ``*`` and ``?`` that the names must match.

    Example:
        >>> nl3d.list_models("*50_nl")
        ['resnet3d50_nl']
    """
    return [name for name in FACTORIES if fnmatchcase(name, filter)]


def list_weights(model: str | None = None) -> list[WeightsSpec]:
    """Records of the published checkpoints, all or those that can start one network.

    Args:
        model: Name of the network, as of :func:`list_models`.

    Raises:
        ValueError: If there is no such network.

    Example:
        >>> [(spec.name, spec.repo_id) for spec in nl3d.list_weights("resnet3d50_nl")]
        [('imagenet', 'timm/resnet50.tv_in1k')]
    """
    if model is not None and model not in FACTORIES:
        raise ValueError(f"unknown model {model!r}; choose from: {', '.join(FACTORIES)}")
    return [spec for spec in WEIGHTS if model is None or model in spec.models]


def has_spec(model: str, weights: str) -> bool:
    """Whether a network has a checkpoint of that name."""
    return any(spec.name == weights and model in spec.models for spec in WEIGHTS)


def find_spec(model: str, weights: str) -> WeightsSpec:
    """Record of a network's checkpoint by name.

    Raises:
        ValueError: If there is none of that name; the names there are get listed.
    """
    specs = {spec.name: spec for spec in list_weights(model)}
    if weights not in specs:
        raise ValueError(
            f"unknown weights {weights!r} for {model}; choose from: {', '.join(specs) or 'none yet'}, the path of a "
            "safetensors file, or 'hf-hub:org/name[@revision]'"
        )
    return specs[weights]


def weights_table() -> str:
    """Every record as a row of a Markdown table, for the documentation.

    Example:
        >>> print(weights_table().splitlines()[0])
        | weights | networks | file | licence | origin and published accuracy | layout proven | download exercised |
    """
    head = (
        "| weights | networks | file | licence | origin and published accuracy | layout proven | download exercised |"
    )
    rows = [head, re.sub("[^|]+", "---", head)]
    for spec in WEIGHTS:
        where = (
            f"[{spec.repo_id}](https://huggingface.co/{spec.repo_id}) at `{spec.revision[:7]}`"
            if spec.revision
            else spec.url
        )
        cells = (
            f"`{spec.name}`",
            ", ".join(f"`{model}`" for model in spec.models),
            where,
            spec.license,
            f"{spec.origin}; {spec.accuracy}",
            spec.layout_proven,
            spec.download_exercised,
        )
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)
