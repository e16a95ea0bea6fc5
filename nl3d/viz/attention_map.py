"""Where a position of a clip attends to, as in the paper's Figure 6, and how sharply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional

from nl3d.viz.ranking import GREY, INK, MATCH, OTHER

GAP, LINE = 6, 17  # pixels
NARROW = 400  # pixels, a phone's width: the frames are laid out in as many rows as that takes


@dataclass(frozen=True, eq=False, repr=False)
class Attention:
    """Weights with which one position of a clip attends to all others.

    Attributes:
        weights: ``(T', H', W')`` of the keys, summing to one in the softmax modes.
        frames: ``(T, 3, H, W)`` uint8, the clip.
        position: ``(t, y, x)`` of the position that attends: frame, row and column of the clip, from 0, in pixels.
        block: Name of the non-local block.
    """

    weights: Tensor
    frames: Tensor
    position: tuple[int, int, int]
    block: str

    @property
    def largest(self) -> float:
        """Share of the largest weight: 1 if the position attends to a single place."""
        return float(self.weights.max() / self.weights.sum())

    @property
    def entropy(self) -> float:
        """Entropy of the weights as a share of that of equal ones: 0 for a single place, 1 for all alike."""
        shares = self.weights.double().flatten() / self.weights.sum()
        bits = -(shares * shares.clamp_min(torch.finfo(torch.float64).tiny).log()).sum()
        return float(bits / torch.tensor(float(max(shares.numel(), 2))).log())

    def strongest(self, top: int = 10) -> list[tuple[tuple[int, int, int], float]]:
        """Return the places with the largest weights, each ``(t, y, x)`` in pixels of its middle, and the weights."""
        values, places = self.weights.flatten().topk(min(top, self.weights.numel()))
        cells = [tuple(int(axis) for axis in torch.unravel_index(place, self.weights.shape)) for place in places]
        return [(self._middle(cell), float(value)) for cell, value in zip(cells, values, strict=True)]

    def __repr__(self) -> str:
        return (
            f"Attention({self.block}, position {self.position}, {tuple(self.weights.shape)} weights, "
            f"largest {self.largest:.2f}, entropy {self.entropy:.2f} of equal weights)"
        )

    def draw(self, kind: Literal["arrows", "heat"] = "arrows", *, top: int = 10, tile_height: int = 192) -> Image.Image:
        """Draw the frames in a row, with arrows to the strongest places or a heat map over all of them.

        Args:
            kind: ``"arrows"``, as in Figure 6, or ``"heat"``: the stronger the weight, the more vermilion.
            top: Arrows, at most. Places with less than a hundredth of the largest weight get none.
            tile_height: Height of a frame in the picture, in pixels.

        Raises:
            ValueError: If ``kind`` is unknown.

        Source: Liao et al. 2018, arXiv:1807.05073, Fig. 6.
        """
        if kind not in ("arrows", "heat"):
            raise ValueError(f"kind must be 'arrows' or 'heat', got {kind!r}")
        count, _, height, width = self.frames.shape
        scale = tile_height / height
        tile = max(round(width * scale), 1), tile_height
        canvas = Image.new(
            "RGB", (max(count * (tile[0] + GAP) + GAP, NARROW), tile_height + 2 * GAP + 2 * LINE), "white"
        )
        for number, image in enumerate(self._painted() if kind == "heat" else self.frames):
            picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
            canvas.paste(picture.resize(tile, Image.Resampling.BICUBIC), (GAP + number * (tile[0] + GAP), GAP))

        def on_canvas(place: tuple[int, int, int]) -> tuple[float, float]:
            t, y, x = place
            return GAP + t * (tile[0] + GAP) + (x + 0.5) * scale, GAP + (y + 0.5) * scale

        draw = ImageDraw.Draw(canvas)
        start = on_canvas(self.position)
        if kind == "arrows":
            found = self.strongest(top)
            for place, weight in reversed(found):  # the strongest on top
                if weight >= 0.01 * found[0][1]:
                    _arrow(draw, start, on_canvas(place), width=1 + round(3 * weight / found[0][1]))
        _ring(draw, start)
        font = ImageFont.load_default(size=12)
        caption = f"{self.block}: largest weight {self.largest:.2f}, entropy {self.entropy:.2f} of equal weights"
        draw.text((GAP, tile_height + 2 * GAP), caption, fill=INK, font=font)
        return canvas

    def _repr_png_(self) -> bytes:
        import io

        stream = io.BytesIO()
        self.draw().save(stream, "PNG")
        return stream.getvalue()

    def _middle(self, cell: Sequence[int]) -> tuple[int, int, int]:
        """Middle of a cell of the map, in frames and pixels of the clip."""
        sizes = self.frames.shape[0], *self.frames.shape[2:]
        middles = [
            int((at + 0.5) * size / cells) for at, size, cells in zip(cell, sizes, self.weights.shape, strict=True)
        ]
        return middles[0], middles[1], middles[2]

    def _painted(self) -> Tensor:
        """Frames mixed with vermilion, by the square root of their weights so that weak ones are seen too."""
        count, _, height, width = self.frames.shape
        heat = (self.weights / self.weights.max()).clamp_min(0).sqrt()
        heat = functional.interpolate(heat[None, None].float(), (count, height, width), mode="nearest")[0, 0]
        mixed = self.frames.float() * 0.6 + torch.tensor(GREY).view(3, 1, 1) * 0.15
        alpha = 0.85 * heat.unsqueeze(1)
        return (mixed * (1 - alpha) + torch.tensor(OTHER).view(3, 1, 1) * alpha).round().clamp(0, 255).to(torch.uint8)


def attention(model: nn.Module, clip: Any, position: tuple[int, int, int], block: str | None = None) -> Attention:
    """Compute where one position of a clip attends to; only that row of the map is computed.

    Args:
        model: A network of nl3d with non-local blocks.
        clip: Frames of one person that ``model.processor`` takes, or a clip ``(3, T, H, W)`` float32 that it made.
        position: ``(t, y, x)``: frame, row and column of the clip, from 0, in pixels.
        block: ``"layer3.5"`` for the block after that residual block, or the module's own name; the last one, if left
            out.

    Raises:
        ValueError: If the network has no such block, or the position is outside the clip.

    Source: Liao et al. 2018, arXiv:1807.05073, Fig. 6 and Eq. 4.
    """
    processor: Any = model.processor
    clips = clip if isinstance(clip, Tensor) and clip.is_floating_point() else processor(clip)
    sizes = tuple(clips.shape[1:])
    if len(position) != 3 or not all(0 <= at < size for at, size in zip(position, sizes, strict=True)):
        raise ValueError(f"position must be (t, y, x) within the clip of {sizes}, got {position!r}")
    name, module = _find_block(model, block)
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    training = [part for part in model.modules() if part.training]
    try:
        with torch.inference_mode():
            model.eval()(clips[None].to(next(model.parameters()).device))
            maps = seen[0]
            cell = tuple(at * cells // size for at, cells, size in zip(position, maps.shape[2:], sizes, strict=True))
            weights = module.attention(maps, cell)[0].float().cpu()
    finally:
        hook.remove()
        for part in training:
            part.training = True
    mean, std = (torch.tensor(getattr(processor, name)).view(3, 1, 1, 1) for name in ("mean", "std"))
    frames = ((clips.cpu() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).transpose(0, 1)
    return Attention(weights, frames, (int(position[0]), int(position[1]), int(position[2])), name)


def _find_block(model: nn.Module, block: str | None) -> tuple[str, Any]:
    """Find a non-local block by the paper's counting of blocks or by its module's name."""
    blocks = {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "attention") and hasattr(module, "w_z")
    }
    if not blocks:
        raise ValueError(f"model must have non-local blocks, got {type(model).__name__} without any")
    name = next(reversed(blocks)) if block is None else block
    if name not in blocks and block is not None:
        stage, _, number = block.rpartition(".")
        name = f"{stage}.non_local{number}"
    if name not in blocks:
        raise ValueError(f"block must be a non-local block of the network, one of {', '.join(blocks)}, got {block!r}")
    return name, blocks[name]


def _arrow(draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], *, width: int) -> None:
    """Draw a line with a head, white below so that it is seen on any picture."""
    along = torch.tensor(end) - torch.tensor(start)
    length = float(along.norm())
    if length < 1:
        _ring(draw, end)
        return
    unit = along / length
    side = torch.tensor((-unit[1], unit[0]))
    base = torch.tensor(end) - unit * (6 + 2 * width)
    corners = [torch.tensor(end), base + side * (3 + width), base - side * (3 + width)]
    draw.line([start, (float(base[0]), float(base[1]))], fill="white", width=width + 2)
    draw.line([start, (float(base[0]), float(base[1]))], fill=OTHER, width=width)
    draw.polygon([(float(x), float(y)) for x, y in corners], fill=OTHER, outline="white")


def _ring(draw: ImageDraw.ImageDraw, middle: tuple[float, float], radius: int = 6) -> None:
    """Mark the position that attends."""
    x, y = middle
    for extra, colour in ((2, "white"), (0, MATCH)):
        size = radius + extra
        draw.ellipse((x - size, y - size, x + size, y + size), outline=colour, width=2 + extra)
