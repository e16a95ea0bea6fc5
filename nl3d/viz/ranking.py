"""A picture of rankings: one row per query, with the query at the left and its ranking beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from torch import Tensor

# blue and vermilion of Okabe and Ito, which people with any colour vision tell apart
MATCH, OTHER, GREY, INK = (0, 114, 178), (213, 94, 0), (225, 225, 225), (30, 30, 30)
BORDER, GAP, LINE, BADGE = 5, 6, 15, 18  # pixels


class Tile(NamedTuple):
    """One picture of a row.

    Attributes:
        image: ``(3, H, W)`` uint8 of any size, or None for an empty tile.
        name: First line below it, shortened in the middle if it is too long.
        note: Second line, never shortened, such as the distance.
        match: True for a blue border with a tick and "match", False for an orange one with a cross and "other", None
            for no border.
    """

    image: Tensor | None
    name: str
    note: str = ""
    match: bool | None = None


def draw_ranking(rows: Sequence[Sequence[Tile]], *, tile_size: tuple[int, int] = (192, 96)) -> Image.Image:
    """Draw rows of tiles; the first of each row, the query, stands apart.

    Args:
        rows: The tiles of each row; rows may differ in length.
        tile_size: Height and width of the box that a picture is fitted into, in pixels; its proportions stay.
    """
    if not rows or not all(rows):
        raise ValueError("rows must hold at least one tile each, got none")
    height, width = tile_size
    step_x, step_y = width + 2 * BORDER + GAP, height + 2 * BORDER + 2 * LINE + GAP + 2
    columns = max(map(len, rows))
    canvas = Image.new("RGB", (columns * step_x + (columns > 1) * 2 * GAP, len(rows) * step_y + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=12)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            x = GAP // 2 + column * step_x + (column > 0) * 2 * GAP
            y = GAP + row * step_y
            if tile.match is not None:
                box = (x, y, x + width + 2 * BORDER - 1, y + height + 2 * BORDER - 1)
                draw.rectangle(box, fill=MATCH if tile.match else OTHER)
            _paste(canvas, tile.image, (x + BORDER, y + BORDER), tile_size)
            if tile.match is not None:
                _draw_badge(draw, (x, y), tile.match)
            below = y + height + 2 * BORDER + 1
            draw.text((x + BORDER, below), _shorten(draw, tile.name, font, width), fill=INK, font=font)
            word = {True: "  match", False: "  other", None: ""}[tile.match]
            if draw.textlength(tile.note + word, font=font) > width + BORDER:
                word = ""  # the tick or cross says it too
            draw.text((x + BORDER, below + LINE), tile.note + word, fill=INK, font=font)
    return canvas


def _paste(canvas: Image.Image, image: Tensor | None, corner: tuple[int, int], tile_size: tuple[int, int]) -> None:
    height, width = tile_size
    tile = Image.new("RGB", (width, height), GREY)
    if image is not None:
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
        scale = min(width / picture.width, height / picture.height)
        size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
        tile.paste(picture, ((width - size[0]) // 2, (height - size[1]) // 2))
    canvas.paste(tile, corner)


def _draw_badge(draw: ImageDraw.ImageDraw, corner: tuple[int, int], match: bool) -> None:
    """Draw a tick or a cross into the corner of a border."""
    x, y = corner
    draw.rectangle((x, y, x + BADGE, y + BADGE), fill=MATCH if match else OTHER)
    tick = [(x + 4, y + 9), (x + 8, y + 13), (x + 14, y + 5)]
    strokes = [tick] if match else [[(x + 5, y + 5), (x + 13, y + 13)], [(x + 13, y + 5), (x + 5, y + 13)]]
    for stroke in strokes:
        draw.line(stroke, fill="white", width=2)


def _shorten(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int
) -> str:
    """Leave out the middle of a text that is too long; names of tracklets differ at either end."""
    kept, short = len(text), text
    while kept > 1 and draw.textlength(short, font=font) > width:
        kept -= 1
        short = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
    return short
