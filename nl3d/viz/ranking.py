"""A picture of rankings: one row a query, the query at the left, what was found beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from torch import Tensor

GREEN, RED, GREY, INK = (24, 150, 60), (205, 40, 40), (225, 225, 225), (30, 30, 30)
BORDER, GAP, CAPTION = 5, 6, 18  # pixels


class Tile(NamedTuple):
    """One picture of a row.

    Attributes:
        image: ``(3, H, W)`` uint8 of any size, or None for an empty tile.
        caption: A few words below it.
        match: True for a green border, False for a red one, None for none.
    """

    image: Tensor | None
    caption: str
    match: bool | None = None


def draw_ranking(rows: Sequence[Sequence[Tile]], *, tile_size: tuple[int, int] = (192, 96)) -> Image.Image:
    """Draw rows of tiles; the first of each row, the query, stands apart.

    Args:
        rows: The tiles of each row; rows may differ in length.
        tile_size: Height and width that a picture is fitted into, in pixels; its proportions stay.

    Raises:
        ValueError: If there is nothing to draw.

    Example:
        >>> draw_ranking([[Tile(None, "query"), Tile(None, "first", True)]], tile_size=(64, 32)).size
        (108, 106)
    """
    if not rows or not all(rows):
        raise ValueError("rows must hold at least one tile each, got none")
    height, width = tile_size
    step_x, step_y = width + 2 * BORDER + GAP, height + 2 * BORDER + CAPTION + GAP
    columns = max(map(len, rows))
    canvas = Image.new("RGB", (columns * step_x + (columns > 1) * 2 * GAP, len(rows) * step_y + GAP + 2), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=12)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            x = GAP // 2 + column * step_x + (column > 0) * 2 * GAP
            y = GAP + row * step_y
            if tile.match is not None:
                box = (x, y, x + width + 2 * BORDER - 1, y + height + 2 * BORDER - 1)
                draw.rectangle(box, fill=GREEN if tile.match else RED)
            _paste(canvas, tile.image, (x + BORDER, y + BORDER), tile_size)
            text = _shorten(draw, tile.caption, font, width + 2 * BORDER)
            draw.text((x + BORDER, y + height + 2 * BORDER + 2), text, fill=INK, font=font)
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


def _shorten(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int
) -> str:
    if draw.textlength(text, font=font) <= width:
        return text
    while len(text) > 1 and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."
