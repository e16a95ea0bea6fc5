"""Drawing: shaded capsules with soft edges and a depth buffer, all frames at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Paint = Callable[[np.ndarray, np.ndarray, slice], np.ndarray]
"""``(along, across, frames) -> (3, T, h, w)`` or a shape that broadcasts to it. ``along`` is metres from the start,
``across`` goes from -1 to 1 between the edges, and ``frames`` are the T frames of the canvas."""


@dataclass(frozen=True)
class Boxes:
    """Part of the scene that each frame shows, in metres of the walker's picture plane, arrays ``(T,)``."""

    left: np.ndarray
    top: np.ndarray
    width: np.ndarray
    height: np.ndarray


class Canvas:
    """Frames to draw on, float32 ``rgb`` ``(3, T, H, W)`` in [0, 1].

    Args:
        rgb: Background, drawn over in place.
        boxes: Part of the scene in each frame.
        light: Direction of the light, from -1 (left) to 1 (right).
    """

    def __init__(self, rgb: np.ndarray, boxes: Boxes, *, light: float = 0.0) -> None:
        _, num_frames, height, width = rgb.shape
        self.rgb = rgb
        self.boxes = boxes
        self.light = np.float32(0.3 * light)
        self.depth = np.full((num_frames, height, width), -1e3, dtype=np.float32)
        columns = (np.arange(width, dtype=np.float32) + 0.5) / width
        rows = (np.arange(height, dtype=np.float32) + 0.5) / height
        self._x = (boxes.left[:, None] + boxes.width[:, None] * columns).astype(np.float32)[:, None, :]
        self._y = (boxes.top[:, None] + boxes.height[:, None] * rows).astype(np.float32)[:, :, None]
        self._pixel = np.sqrt(boxes.width / width * boxes.height / height).astype(np.float32)[:, None, None]

    def capsule(
        self,
        start: np.ndarray,
        end: np.ndarray,
        start_radius: float | np.ndarray,
        end_radius: float | np.ndarray,
        paint: Paint,
        *,
        length: float | np.ndarray = 1.0,
        flat: bool = False,
        opacity: float = 1.0,
    ) -> None:
        """Draw a tapered limb between two projected joints, where it is nearer than what was drawn before.

        Args:
            start: ``(T, 4)``, see :meth:`View.project`.
            end: ``(T, 4)`` likewise.
            start_radius: Metres at the start, one value or ``(T,)``.
            end_radius: Metres at the end, likewise.
            paint: Colour of each point of the surface.
            length: True length in metres, one value or ``(T,)``, so that patterns keep their period on a limb that
                points at the camera.
            flat: Whether the ends are cut off instead of rounded.
            opacity: Share of the colour below that the limb covers.
        """
        ra = (start_radius * start[:, 3]).astype(np.float32)
        rb = (end_radius * end[:, 3]).astype(np.float32)
        window = self._window(start, end, np.maximum(ra, rb) if flat else ra, np.maximum(ra, rb) if flat else rb)
        if window is None:
            return
        frames, rows, columns = window
        x, y = self._x[frames, :, columns], self._y[frames, rows]
        ax, ay, az = (start[frames, axis, None, None] for axis in range(3))
        dx, dy, dz = (end[frames, axis, None, None] - start[frames, axis, None, None] for axis in range(3))
        size = np.sqrt(dx * dx + dy * dy) + np.float32(1e-4)
        nx, ny = dx / size, dy / size

        along = (x - ax) * nx + (y - ay) * ny
        across = (x - ax) * ny - (y - ay) * nx  # to the right if the limb points down
        share = along / size
        np.clip(share, 0, 1, out=share)
        radius = share * (rb - ra)[frames, None, None]
        radius += ra[frames, None, None]
        if flat:
            distance = np.maximum(np.abs(across) - radius, np.abs(along - size / 2) - size / 2)
        else:
            along -= share * size  # beyond the ends
            distance = across * across
            along *= along
            distance += along
            np.sqrt(distance, out=distance)
            distance -= radius
        distance /= -self._pixel[frames]
        distance += np.float32(0.5)
        cover = np.clip(distance, 0, 1, out=distance)
        across /= radius
        np.clip(across, -1, 1, out=across)
        bulge = across * across

        near = share * dz
        near += az
        near += radius * (np.float32(0.8) - np.float32(0.8) * bulge)
        depth = self.depth[frames, rows, columns]
        cover *= near > depth
        if opacity == 1.0:
            np.copyto(depth, near, where=cover > 0.5)
        else:
            cover *= np.float32(opacity)

        share *= length if isinstance(length, float) else length.astype(np.float32)[frames, None, None]
        bulge *= np.float32(-0.3)
        bulge += self.light * across
        bulge += np.float32(1.0)
        colour = paint(share, across, frames) * bulge
        target = self.rgb[:, frames, rows, columns]
        colour -= target
        colour *= cover
        target += colour

    def _window(
        self, start: np.ndarray, end: np.ndarray, ra: np.ndarray, rb: np.ndarray
    ) -> tuple[slice, slice, slice] | None:
        """Return the frames, rows and columns that a limb can touch."""
        boxes, (_, height, width) = self.boxes, self.depth.shape
        left = (np.minimum(start[:, 0] - ra, end[:, 0] - rb) - boxes.left) / boxes.width * width - 1
        right = (np.maximum(start[:, 0] + ra, end[:, 0] + rb) - boxes.left) / boxes.width * width + 1
        top = (np.minimum(start[:, 1] - ra, end[:, 1] - rb) - boxes.top) / boxes.height * height - 1
        bottom = (np.maximum(start[:, 1] + ra, end[:, 1] + rb) - boxes.top) / boxes.height * height + 1
        seen = np.flatnonzero((right > 0) & (left < width) & (bottom > 0) & (top < height))
        if not len(seen):
            return None
        frames = slice(int(seen[0]), int(seen[-1]) + 1)
        rows = slice(max(0, int(top[seen].min())), min(height, int(np.ceil(bottom[seen].max()))))
        columns = slice(max(0, int(left[seen].min())), min(width, int(np.ceil(right[seen].max()))))
        return frames, rows, columns
