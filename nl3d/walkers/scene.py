"""Street scenes: walls and ground behind the walkers, and obstacles in front of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np

from nl3d.walkers.draws import Draws
from nl3d.walkers.raster import Boxes, Canvas

PIXELS_PER_METRE = 40
_HIGH, _WIDE = 4 * PIXELS_PER_METRE, 16 * PIXELS_PER_METRE


@lru_cache(maxsize=256)
def draw_scene(seed: int, camid: int, *, pitch: float, clutter: float) -> np.ndarray:
    """Draw the street in front of a camera: uint8 ``(3, 4 m, 16 m)`` at 40 pixels per metre, wrapping around.

    Row 0 is 2 m above the middle of a walker. The more the camera looks down, the higher the ground ends.
    """
    draws = Draws(seed, "scene", camid)
    metres = (np.arange(_HIGH) + 0.5) / PIXELS_PER_METRE - 2.0
    edge = 0.9 - draws.uniform(1.0, 6.0) * np.sin(pitch) - draws.uniform(0.05, 0.4)
    scene = np.empty((3, _HIGH, _WIDE))
    ends = [0, *(int((part + draws.uniform(-0.25, 0.25)) * _WIDE / 5) for part in range(1, 5)), _WIDE]
    for start, end in pairwise(ends):  # five parts of the street, each with its wall and ground
        wall, ground = _wall(draws), _ground(draws, metres)
        scene[..., start:end] = np.where((metres < edge)[:, None], wall, ground)[..., start:end]
    for _ in range(int(draws.uniform(2, 10))):  # cars, signs, doors
        high, wide = draws.uniform(0.2, 1.6), draws.uniform(0.15, 2.5)
        bottom, left = edge + draws.uniform(-0.8, 0.5), draws.uniform(0, 16)
        rows = (metres > bottom - high) & (metres < bottom)
        columns = (np.arange(_WIDE) / PIXELS_PER_METRE - left) % 16 < wide
        colour = _colour(draws)[:, None, None]
        scene = np.where(rows[:, None] & columns, 0.8 * colour + 0.2 * scene, scene)
    plain = np.array([0.52, 0.52, 0.5])[:, None, None]
    scene = plain + min(1.0, 0.5 * clutter) * (scene - plain)
    return np.clip(scene * 255.0, 0, 255).astype(np.uint8)


def look(scene: np.ndarray, boxes: Boxes, scroll: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the scene inside the boxes, float32 ``(3, T, h, w)`` in [0, 1]; ``scroll`` ``(T,)`` is metres walked."""
    height, width = size
    rows = boxes.top[:, None] + boxes.height[:, None] * (np.arange(height) + 0.5) / height
    columns = (boxes.left + scroll)[:, None] + boxes.width[:, None] * (np.arange(width) + 0.5) / width
    rows = np.clip((rows + 2.0) * PIXELS_PER_METRE, 0, _HIGH - 1).astype(np.int32)
    columns = np.floor(columns * PIXELS_PER_METRE).astype(np.int64) % _WIDE
    return scene[:, rows[:, :, None], columns[:, None, :]] * np.float32(1 / 255)


def _noise(draws: Draws, high: int, wide: int) -> np.ndarray:
    """Smooth noise of about 0 +- 1 that wraps around sideways, from a grid of ``high x wide`` values."""
    grid = draws.uniforms(high * wide).reshape(high, wide) * 2 - 1
    rows = np.linspace(0, high - 1, _HIGH)
    columns = np.arange(_WIDE) * (wide / _WIDE)
    above, left = rows.astype(int), columns.astype(int)
    down, right = (rows - above)[:, None], columns - left
    below, next_ = np.minimum(above + 1, high - 1), (left + 1) % wide
    line = grid[above] * (1 - down) + grid[below] * down
    return line[:, left] * (1 - right) + line[:, next_] * right


def _colour(draws: Draws) -> np.ndarray:
    grey = draws.uniform(0.15, 0.85)
    return np.clip(grey + draws.uniform(0.01, 0.09) * draws.normals(3), 0.03, 0.97)


def _wall(draws: Draws) -> np.ndarray:
    x, y = np.arange(_WIDE) / PIXELS_PER_METRE, np.arange(_HIGH)[:, None] / PIXELS_PER_METRE
    kind = draws.pick(["plain", "bricks", "windows", "leaves", "bars", "shops"])
    first, second = _colour(draws), _colour(draws)
    mottle = 0.5 * _noise(draws, 5, 20) + 0.5 * _noise(draws, 20, 80)
    if kind == "bricks":
        row = np.floor(y / 0.12)
        mix = ((y % 0.12 < 0.025) | ((x + 0.16 * (row % 2)) % 0.32 < 0.03)) * 0.5
    elif kind == "windows":
        period = draws.pick([1.0, 1.6, 2.0])
        mix = ((x % period < 0.6 * period) & (y % 1.6 < 1.0)) * 0.9
    elif kind == "leaves":
        first, second = np.array([0.1, 0.2, 0.08]), np.array([0.42, 0.55, 0.25])
        mix = np.clip(0.5 + 0.9 * _noise(draws, 40, 160) + 0.4 * mottle, 0, 1)
    elif kind == "bars":
        mix = (x % draws.pick([0.25, 0.4, 0.5]) < 0.07) * 0.9
    elif kind == "shops":
        mix = (draws.uniforms(16)[(x // 1).astype(int)] > 0.5) * np.where(y < 0.5, 0.3, 0.9)
    else:
        mix = np.zeros(1)
    wall = first[:, None, None] + (second - first)[:, None, None] * mix
    return np.asarray(wall + 0.06 * mottle)


def _ground(draws: Draws, metres: np.ndarray) -> np.ndarray:
    x, y = np.arange(_WIDE) / PIXELS_PER_METRE, metres[:, None]
    colour = 0.2 + 0.6 * _colour(draws)
    if draws.chance(0.8):
        colour = 0.75 * colour.mean() + 0.25 * colour  # most ground is grey
    mottle = 0.5 * _noise(draws, 10, 20) + 0.5 * _noise(draws, 40, 80)
    ground = colour[:, None, None] * (1.0 + 0.12 * y) + 0.09 * mottle
    if draws.chance(0.6):  # paving stones, seen at a slant
        stone = draws.pick([0.5, 0.8, 1.0, 1.6])
        lines = (y % (0.4 * stone) < 0.03) | ((x + draws.uniform(-1.0, 1.0) * y) % stone < 0.04)
        ground = ground * (1.0 - draws.uniform(0.1, 0.4) * lines)
    return np.asarray(ground)


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Something that passes in front of a walker, or a person behind."""

    kind: Literal["person", "pole", "box", "behind"]
    time: float  # seconds at which it is in the middle
    speed: float  # metres per second to the right, relative to the walker
    nearer: float  # metres
    number: int  # of the person, or of the colours

    def offset(self, times: np.ndarray) -> np.ndarray:
        """Return metres to the right of the walker at each time."""
        return self.speed * (times - self.time)


def draw_obstacles(draws: Draws, *, amount: float, duration: float) -> tuple[Obstacle, ...]:
    """Draw the obstacles of ``duration`` seconds; at ``amount`` 1, two tracklets in five have one in front."""
    obstacles = []
    for probability, kinds in ((0.33, ("person", "pole", "box")), (0.1, ("person", "pole", "box")), (0.3, ("behind",))):
        present = draws.chance(min(0.95, amount * probability))
        kind: Literal["person", "pole", "box", "behind"] = draws.pick(kinds)  # type: ignore[arg-type]
        speed = draws.uniform(0.3, 1.5 if kind == "person" else 0.8) * draws.pick([-1.0, 1.0])
        if kind == "behind":
            speed *= 0.5
        obstacle = Obstacle(
            kind=kind,
            time=draws.uniform(0.0, duration),
            speed=speed,
            nearer=draws.uniform(-3.5, -1.2) if kind == "behind" else draws.uniform(0.5, 1.2),
            number=int(draws.uniform(0, 10_000)),
        )
        if present:
            obstacles.append(obstacle)
    return tuple(obstacles)


def draw_thing(canvas: Canvas, obstacle: Obstacle, times: np.ndarray) -> None:
    """Draw a pole or a box in front of the walker."""
    draws = Draws("thing", obstacle.number)
    first, second = (_colour(draws).astype(np.float32)[:, None, None, None] for _ in range(2))
    period = np.float32(draws.pick([0.1, 0.3, 0.6, 9.0]))
    if obstacle.kind == "pole":
        top, bottom, half = -3.0, 3.0, draws.uniform(0.04, 0.16)
    else:
        half = draws.uniform(0.3, 0.8)
        top, bottom = 0.9 - draws.uniform(0.3, 0.95), 1.6

    def paint(along: np.ndarray, across: np.ndarray, frames: slice) -> np.ndarray:
        return first + (second - first) * ((along % period) < np.float32(0.3) * period)

    x = obstacle.offset(times)
    depth, scale = np.full_like(x, 20.0), np.ones_like(x)
    ends = [np.stack([x, np.full_like(x, y), depth, scale], 1).astype(np.float32) for y in (top, bottom)]
    canvas.capsule(ends[0], ends[1], half, half, paint, length=bottom - top, flat=True)
