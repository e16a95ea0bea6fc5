"""The published checkpoints of ``records.yaml``, one frozen record each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

FACTORIES = (
    *(f"resnet3d{depth}{blocks}" for depth in (18, 34, 50, 101) for blocks in ("", "_nl")),
    *(f"resnet50_{aggregation}" for aggregation in ("tp", "rnn", "ta")),
)


@dataclass(frozen=True, kw_only=True)
class WeightsSpec:
    """A published checkpoint: its address, its clips and its origin.

    Attributes:
        name: Its name in ``weights=``.
        models: Factories that it can start, or ``inflated:NAME`` for timm's network ``NAME``.
        repo_id: Repository on the Hugging Face Hub, or ``None`` where the Hub has no copy.
        bundled: Whether it comes with the package, so that it loads without network.
        package: Package of PyPI that installs the file, as the extra ``lite0`` does, or ``None``.
        filename: File within it.
        revision: Commit hash, since a branch could move; shortened where the rest is unknown.
        family: Family of its names and shapes.
        clip_size: ``(T, H, W)`` in frames and pixels of the clips that the network expects.
        frame_step: Frames from one frame of a clip to the next.
        mean: Mean of each RGB channel in [0, 1], subtracted.
        std: Deviation of each RGB channel, the divisor.
        license: SPDX identifier.
        origin: Who trained it, and on what.
        accuracy: Accuracy that its publisher states.
        url: Address if it is not on the Hub; such a file is fetched by hand.
        sha256: Hash of its bytes, ``None`` where none is published. Without it, or without a full commit, the file is
            fetched by hand.
        layout: Layout of its kernels; ``"any"`` for those of an image network, which are inflated.
        layout_proven: Test that the converted network computes what the original computed.
        download_exercised: How the download has been tried.
    """

    name: str
    models: tuple[str, ...]
    repo_id: str | None = None
    bundled: bool = False
    package: str | None = None
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
    layout: str = "any"
    layout_proven: str
    download_exercised: str

    def __post_init__(self) -> None:
        if not (self.repo_id and self.revision) and not self.url and not self.bundled and not self.package:
            raise ValueError(f"repo_id and revision, url, package or bundled must say where {self.name!r} lies")

    @property
    def is_fetched(self) -> bool:
        """Whether nl3d fetches it itself: only what a full commit and a hash pin; all else is fetched by hand."""
        return bool(self.repo_id and self.revision and len(self.revision) == 40 and self.sha256)

    @property
    def is_foreign(self) -> bool:
        """Whether the file is in another project's names and must be converted."""
        return self.family not in ("timm", "nl3d")

    @property
    def where(self) -> str:
        """Repository, address, or package."""
        return self.repo_id or self.url or (f"PyPI: {self.package}" if self.package else "comes with nl3d")


def _read_records() -> tuple[WeightsSpec, ...]:
    table = yaml.safe_load(Path(__file__).with_name("records.yaml").read_text(encoding="utf-8"))
    records: list[dict[str, Any]] = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        for record in table["records"]
    ]
    return tuple(WeightsSpec(**record) for record in records)


WEIGHTS = _read_records()


def list_models(filter: str = "*") -> list[str]:
    """Names of the networks that can be built, by ``nl3d.<name>()``.

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
        [('imagenet', 'timm/resnet50.tv_in1k'), ('kinetics', 'jinmang2/test_video_fe'), ...]
    """
    known = [*FACTORIES, *(name for spec in WEIGHTS if spec.package for name in spec.models)]
    if model is not None and model not in known:
        raise ValueError(f"unknown model {model!r}; choose from: {', '.join(known)}")
    return [spec for spec in WEIGHTS if model is None or model in spec.models]


def has_spec(model: str, weights: str) -> bool:
    """Whether a network has a checkpoint of that name."""
    return any(spec.name == weights and model in spec.models for spec in WEIGHTS)


def find_spec(model: str, weights: str) -> WeightsSpec:
    """Record of a network's checkpoint by name."""
    specs = {spec.name: spec for spec in list_weights(model)}
    if weights not in specs:
        raise ValueError(
            f"unknown weights {weights!r} for {model}; choose from: {', '.join(specs) or 'none yet'}, the path of a "
            "file, or 'hf-hub:org/name[@revision]'"
        )
    return specs[weights]


def weights_table(columns: Sequence[str] | None = None) -> str:
    """Every record as a row of a Markdown table, for the documentation."""
    rows = [_row(spec) for spec in WEIGHTS]
    columns = columns or tuple(rows[0])
    table = [columns, ["---"] * len(columns), *([row[column] for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def _row(spec: WeightsSpec) -> dict[str, str]:
    frames, height, width = spec.clip_size
    where = spec.where if spec.bundled else f"[{spec.filename}]({spec.url}), by hand"
    if spec.package:
        where = f"[{spec.package}](https://pypi.org/project/{spec.package}/) `{spec.filename}`"
    if spec.repo_id and spec.revision:
        page = f"https://huggingface.co/{spec.repo_id}"
        where = f"[{spec.repo_id}]({page}) `{spec.filename}` at `{spec.revision[:7]}`"
        where += "" if spec.is_fetched else ", by hand"
    return {
        "weights": f"`{spec.name}`",
        "networks": ", ".join(f"`{model}`" for model in spec.models),
        "file": where,
        "family": f"`{spec.family}`",
        "licence": spec.license,
        "layout": spec.layout,
        "clip": f"{frames} x {height}x{width}, every {spec.frame_step}",
        "mean, deviation": f"{_numbers(spec.mean)}; {_numbers(spec.std)}",
        "origin and published accuracy": f"{spec.origin}; {spec.accuracy}",
        "layout proven against the original code": spec.layout_proven,
        "download exercised": spec.download_exercised,
    }


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3g}" for value in dict.fromkeys(values))
