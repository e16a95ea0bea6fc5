"""Inflate every convolutional network of timm and hold it against the image network it came from.

``python -m tests.sweep_timm`` runs what the results file lacks and rewrites the table in ``docs/inflation.md``. A batch
of two clips goes through each network, one still and one moving, with random weights, random norm statistics and
replicated end frames. A network passes if on the still clip every frame of the last feature map equals the image
network's to 1e-4 of its largest value, on the moving clip it differs from frame by frame, and gradients reach every
temporal tap. Work happens in short-lived processes, so that memory stays bounded.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

RESULTS = Path("build/sweep_timm.jsonl")
DOCS = Path(__file__).parents[1] / "docs" / "inflation.md"
BEGIN, END = "<!-- sweep: begin -->", "<!-- sweep: end -->"
TOLERANCE = 1e-4
MINIMUM_CONVOLUTIONS = 4
CHUNK = 12
GIANT = 250_000_000  # parameters
KERNELS = 150_000_000  # parameters in inflated kernels, at most, in one go


# ------------------------------------------------------------------------------------------------ building


class _NoInit(TorchFunctionMode):
    """Leave out the initialisation of parameters, which takes longer than everything else and is overwritten."""

    skipped = frozenset(
        getattr(Tensor, name) for name in ("normal_", "uniform_", "erfinv_", "mul_", "add_", "clamp_", "bernoulli_")
    )

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.skipped and isinstance(args[0], nn.Parameter):
            return args[0]
        return func(*args, **(kwargs or {}))


class _Pools:
    """Random numbers that parameters are views into: no network needs more memory than its largest tensors."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.by_exponent: dict[int, Tensor] = {}

    def view(self, shape: torch.Size, std: float) -> Tensor:
        exponent, count = round(torch.tensor(std).log2().item()), shape.numel()
        pool = self.by_exponent.get(exponent)
        if pool is None or len(pool) < count:
            pool = torch.randn(count + 4096, generator=self.generator) * 2.0**exponent
            self.by_exponent[exponent] = pool
        start = int(torch.randint(len(pool) - count + 1, (), generator=self.generator))
        return pool[start : start + count].view(shape)

    def uniform(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=self.generator) + 0.5


def randomise(network: nn.Module) -> None:
    """Random weights of He's scale and random norm statistics; no gain is zero and no norm the identity."""
    pools = _Pools()
    for name, parameter in network.named_parameters():
        shape = parameter.shape
        if parameter.ndim > 1 and shape.numel() != max(shape):
            parameter.data = pools.view(shape, (2 * shape[0] / shape.numel()) ** 0.5)
        elif "bias" in name.rpartition(".")[2]:
            parameter.data = pools.view(shape, 0.1)
        else:
            parameter.data = pools.uniform(parameter) / (2 if is_giant(network) else 1)
    for layer in network.modules():
        if getattr(layer, "running_var", None) is not None:
            _randomise_statistics(layer, pools)
            if layer.weight is not None:  # small gains, or deep residual branches multiply rounding by thousands
                layer.weight.data *= 0.1 if is_giant(network) else 0.25


def _randomise_statistics(norm: nn.Module, pools: _Pools) -> None:
    """On its first input a norm takes about that input's scale: deep networks neither explode nor fade.

    Its scale, not its variance, which for a few small maps may be nothing but rounding.
    """

    def take(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        handle.remove()
        x = inputs[0].transpose(0, 1).flatten(1)
        square = x.square().mean(1)
        layer.running_mean.copy_(x.mean(1) * (pools.uniform(square) - 0.5))
        layer.running_var.copy_(square * pools.uniform(square) + 0.1 * square.mean())

    handle = norm.register_forward_pre_hook(take)


def is_giant(network: nn.Module) -> bool:
    """Whether float64 would take too much memory."""
    return sum(parameter.numel() for parameter in network.parameters()) > GIANT


def build(name: str, **options: Any) -> nn.Module:
    """Build a timm network in evaluation mode with random everything."""
    import timm

    with _NoInit():
        network = timm.create_model(name, **options)
    randomise(network)
    return network.eval().requires_grad_(False)


def variants(name: str, smallest: int) -> list[tuple[dict[str, Any], tuple[int, int]]]:
    """Constructor options and image sizes to try in turn: the smallest that the network takes is the cheapest."""
    import timm

    config = timm.get_pretrained_cfg(name)
    native = (config.input_size if config is not None else (3, 224, 224))[-2:]
    smaller = [(size, size) for size in (smallest, 2 * smallest, 4 * smallest) if size < native[0]]
    if config is not None and config.fixed_input_size:
        return [({"img_size": size[0]}, size) for size in smaller] + [({}, native)]
    return [({}, size) for size in smaller] + [({}, native)]


def images(size: tuple[int, int]) -> Tensor:
    """Make one image, then three frames of a moving clip, which have half of their power in common."""
    noise = torch.randn(5, 3, *size, generator=torch.Generator().manual_seed(1))
    return torch.cat([noise[:1], 0.7 * (noise[1:2] + noise[2:])])


# ------------------------------------------------------------------------------------------------ checking


def check(name: str, smallest: int = 64) -> dict[str, Any]:
    """Result of one network: its status with the reason, and what was measured, at the first size that tells."""
    result: dict[str, Any] = {}
    network, options = None, None
    for wanted, size in variants(name, smallest):
        try:
            if network is None or options != wanted:
                network, options = build(name, **wanted), wanted
            frames = images(size)
            with torch.no_grad():
                reference = maps(network.forward_features(frames))  # a still image, then three frames
        except Exception as error:
            result = result or {"status": "failed", "reason": f"in 2D, {type(error).__name__}: {error}"}
            network = None
            continue
        result = compare(network, frames, reference)
        if result["status"] == "failed" and not is_giant(
            network
        ):  # a deep network may multiply rounding by thousands: then ask float64
            network, frames = network.double(), frames.double()
            with torch.no_grad():
                reference = maps(network.forward_features(frames))
            result = compare(network, frames, reference)
        result = {"size": list(size), "dtype": str(frames.dtype)[6:], **result}
        if result["status"] != "failed" or size[0] >= 128:
            break
        network = None  # maps of one pixel can leave an attention nothing to choose from: try a larger size
    return result


def compare(network: nn.Module, frames: Tensor, reference: list[Tensor]) -> dict[str, Any]:
    """Hold the inflated network against the maps of one still image and three frames.

    A network with huge kernels is inflated in parts, each time other convolutions, until all had their turn.
    """
    spatial = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1]
    parts = 1 + 3 * sum(layer.weight.numel() for layer in spatial) // KERNELS
    turns = {id(layer.weight): index % parts for index, layer in enumerate(spatial)}
    worst: dict[str, Any] = {}
    for part in range(parts):
        where = None if parts == 1 else lambda _, layer, part=part: turns.get(id(layer.weight)) == part
        result = _compare(network, frames, reference, where)
        if result["status"] != "passed":
            return result
        if worst:
            result["layers"] += worst["layers"]
            result["still"] = max(result["still"], worst["still"])
            result["moving"] = min(result["moving"], worst["moving"])
        worst = result
    return worst


def _compare(network: nn.Module, frames: Tensor, reference: list[Tensor], where: Any) -> dict[str, Any]:
    from nl3d.inflate import Inflate2dTo3d

    try:
        video = Inflate2dTo3d(time_kernel=3, time_padding="replicate", share=True, where=where)(network)
    except (TypeError, ValueError) as error:
        return {"status": "refused", "reason": str(error)}
    time_layers = temporal_weights(video)
    ran: set[str] = set()
    reached: set[str] = set()
    for layer_name, layer in video.named_modules():
        if layer_name in time_layers:
            layer.register_forward_hook(lambda *_, layer_name=layer_name: ran.add(layer_name))
            watch_taps(time_layers[layer_name], layer_name, reached)
    clips = torch.stack([frames[:1].expand(3, -1, -1, -1), frames[1:]]).transpose(1, 2)
    try:
        output = [frame_axis(x, network) for x in maps(video.forward_features(clips))]  # each (B, T, ...)
    except ValueError as error:
        if not str(error).startswith("frames must be"):
            raise
        return {"status": "refused", "reason": str(error)}
    largest = [x.abs().max().item() for x in reference]
    pairs = list(zip(output, reference, largest, strict=True))
    still = max((x[0] - y[:1]).abs().max().item() / top for x, y, top in pairs)
    moving = max((x[1] - y[1:]).abs().max().item() / top for x, y, top in pairs)
    generator = torch.Generator().manual_seed(2)
    sum((x * torch.randn(x.shape, generator=generator) / top).sum() for x, _, top in pairs).backward()
    blind = ran - reached
    measured = {"layers": len(ran), "still": still, "moving": moving, "largest": max(largest)}
    if not still <= TOLERANCE:
        return {"status": "failed", "reason": f"still clip off by {still:.1e} of the largest value", **measured}
    if not moving > TOLERANCE:
        return {"status": "failed", "reason": f"moving clip differs by {moving:.1e} only", **measured}
    if blind or not ran:
        return {
            "status": "failed",
            "reason": f"no gradient in some tap of {sorted(blind)[:3]} of {len(ran)}",
            **measured,
        }
    return {"status": "passed", **measured}


def temporal_weights(video: nn.Module) -> dict[str, nn.Parameter]:
    """Weights ``(O, I, t, h, w)`` of all kernels with more than one plane, by layer."""
    return {
        name: layer.weight
        for name, layer in video.named_modules()
        if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] == 3 and layer.weight.ndim == 5
        if "conv_lambda" not in name
    }


def maps(features: Any) -> list[Tensor]:
    """Give the tensors of what ``forward_features`` gave, which may be a list."""
    if isinstance(features, Tensor):
        return [features]
    return [x for part in features for x in maps(part)] if isinstance(features, (list, tuple)) else []


def frame_axis(output: Tensor, network: nn.Module) -> Tensor:
    """(B, C, T, H, W) or tokens (B, T, L, C) to the layout of the image network with T after B."""
    if output.ndim != 5:
        return output
    return output.permute(0, 2, 3, 4, 1) if getattr(network, "output_fmt", "") == "NHWC" else output.transpose(1, 2)


def watch_taps(weight: nn.Parameter, name: str, reached: set[str]) -> None:
    """Note the name once a gradient has reached every plane of the kernel; keep no gradient, they are large."""

    def look(parameter: Tensor) -> None:
        if bool((parameter.grad.abs().amax(dim=(0, 1, 3, 4)) > 0).all()):
            reached.add(name)
        parameter.grad = None

    weight.requires_grad_(True).register_post_accumulate_grad_hook(look)


# ------------------------------------------------------------------------------------------------ running


def classify() -> dict[str, tuple[str, str, int]]:
    """Family, kind and parameters of every timm name with at least four spatial convolutions, from small to large."""
    import timm

    kinds = {}
    attends = ("Attention", "Attn", "MultiQuery")
    for name in progress(timm.list_models(exclude_filters="inflated_*"), "classifying"):
        with torch.device("meta"):
            network = timm.create_model(name)
        types = [type(layer).__name__ for layer in network.modules()]
        spatial = sum(isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1 for layer in network.modules())
        if spatial >= MINIMUM_CONVOLUTIONS:
            attention = any(word in kind for kind in types for word in attends)
            size = sum(parameter.numel() for parameter in network.parameters())
            kinds[name] = (type(network).__module__.rpartition(".")[2], "attention" if attention else "free", size)
    return dict(sorted(kinds.items(), key=lambda item: item[1][2]))


def worker(names: list[str], results: Path) -> None:
    """Check names in this process, one JSON line each."""
    torch.set_num_threads(1)

    def give_up(*_: Any) -> None:
        raise TimeoutError("took more than five minutes")

    signal.signal(signal.SIGALRM, give_up)
    for name in names:
        start = time.perf_counter()
        signal.alarm(300)
        try:
            result = check(name)
        except (Exception, TimeoutError) as error:
            result = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        signal.alarm(0)
        result |= {"seconds": round(time.perf_counter() - start, 2)}
        result |= {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
        with results.open("a") as lines:
            lines.write(json.dumps({"name": name, **result}) + "\n")


def progress(items: list[str], label: str) -> Any:
    from tqdm import tqdm

    return tqdm(items, desc=label, mininterval=1.0)


def read(results: Path) -> dict[str, dict[str, Any]]:
    """Last line of every name."""
    lines = results.read_text().splitlines() if results.exists() else []
    return {line["name"]: line for line in map(json.loads, lines)}


def chunks(names: list[str], kinds: dict[str, tuple[str, str, int]]) -> list[list[str]]:
    """Names that share a process: a few, or one giant."""
    giants = [[name] for name in names if kinds[name][2] > GIANT]
    others = [name for name in names if kinds[name][2] <= GIANT]
    return [others[start : start + CHUNK] for start in range(0, len(others), CHUNK)] + giants


def sweep(kinds: dict[str, tuple[str, str, int]], results: Path, *, again: str, only: str) -> None:
    """Run what has no result yet, or one that is to be had again."""
    done = read(results)
    wanted = [name for name, (family, *_) in kinds.items() if not only or family in only.split(",")]
    todo = [name for name in wanted if name not in done or done[name]["status"] in again.split(",")]
    bar = progress(todo, "inflating")
    for chunk in chunks(todo, kinds):
        while chunk:
            lines_before = results.read_text().count("\n") if results.exists() else 0
            command = [sys.executable, "-W", "ignore", "-m", "tests.sweep_timm", "--results", str(results), "--worker"]
            ended = subprocess.run([*command, *chunk], check=False)
            finished = (results.read_text().count("\n") if results.exists() else 0) - lines_before
            bar.update(finished)
            chunk = chunk[finished:]
            if chunk:  # killed in the middle, as for want of memory
                with results.open("a") as lines:
                    reason = f"process ended with {ended.returncode}"
                    lines.write(json.dumps({"name": chunk[0], "status": "failed", "reason": reason}) + "\n")
                bar.update(1)
                chunk = chunk[1:]
    bar.close()


# ------------------------------------------------------------------------------------------------ the table


def table(kinds: dict[str, tuple[str, str, int]], done: dict[str, dict[str, Any]]) -> str:
    """Markdown: counts per family, then what did not pass and why."""
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: {"free": [0, 0], "attention": [0, 0]})
    for name, (family, kind, _) in kinds.items():
        counts[family][kind][1] += 1
        counts[family][kind][0] += done.get(name, {}).get("status") == "passed"
    rows = ["| family | attention-free | with attention |", "|---|---|---|"]
    cell = lambda pair: f"{pair[0]} of {pair[1]}" if pair[1] else ""  # noqa: E731
    rows += [
        f"| {family} | {cell(pair['free'])} | {cell(pair['attention'])} |" for family, pair in sorted(counts.items())
    ]
    total = {kind: [sum(pair[kind][i] for pair in counts.values()) for i in (0, 1)] for kind in ("free", "attention")}
    rows += [f"| **all** | **{cell(total['free'])}** | **{cell(total['attention'])}** |", ""]
    passed = [result for name, result in done.items() if name in kinds and result["status"] == "passed"]
    worst = max(passed, key=lambda result: result["still"], default=None)
    if worst:
        hours = sum(done[name].get("seconds", 0) for name in kinds if name in done) / 60
        peak = max(result.get("peak_mb", 0) for result in done.values())
        rows += [
            f"Largest departure on a still clip: {worst['still']:.1e} of the largest value ({worst['name']}). "
            f"{len([name for name in kinds if name in done])} networks ran, {hours:.0f} minutes of one core, "
            f"{peak} MB at most.",
            "",
        ]
    rest = [(name, done[name]) for name in sorted(kinds) if name in done and done[name]["status"] != "passed"]
    if rest:
        rows += ["| did not pass | how | reason |", "|---|---|---|"]
        rows += [f"| {name} | {result['status']} | {_one_line(result['reason'])} |" for name, result in rest]
    missing = [name for name in kinds if name not in done]
    if missing:
        rows += ["", f"Not run: {len(missing)}."]
    return "\n".join(rows)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")[:200]


def write_table(text: str) -> None:
    page = DOCS.read_text()
    head, _, rest = page.partition(BEGIN)
    DOCS.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines, read to resume and appended to")
    parser.add_argument("--again", default="", help="statuses to run again, as failed,refused")
    parser.add_argument("--only", default="", help="families to run, as resnet,vgg")
    parser.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        worker(arguments.worker, arguments.results)
        return
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    listed = arguments.results.with_suffix(".kinds.json")
    if not listed.exists():
        listed.write_text(json.dumps(classify()))
    kinds = {name: tuple(record) for name, record in json.loads(listed.read_text()).items()}
    sweep(kinds, arguments.results, again=arguments.again, only=arguments.only)
    text = table(kinds, read(arguments.results))
    write_table(text)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
