"""Cameras: viewing side, colour, sharpness, noise and compression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from nl3d.walkers.draws import Draws


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Style of one camera.

    ``yaw`` is the heading of most people in radians: 0 walks towards the camera, pi/2 to the right.
    """

    camid: int
    yaw: float
    pitch: float  # radians, looking down
    distance: float  # metres
    light: float  # direction of the light, from -1 (left) to 1 (right)
    gains: tuple[float, float, float]  # colour cast
    saturation: float
    gamma: float
    black: float  # value of black, raised by haze
    person_height: float  # pixels of the sensor per box; infinite if the picture is never enlarged
    blur: float  # deviation in sensor pixels
    noise: float  # deviation, of [0, 1]
    quality: float  # JPEG-like, 12 to 95, or 100 for none


@lru_cache(maxsize=4096)
def draw_camera(seed: int, camid: int, *, style: float, degradation: float) -> Camera:
    """Draw one camera. ``style`` scales its colours and ``degradation`` its loss of detail; 0 is a perfect camera."""
    draws = Draws(seed, "camera", camid)
    normal = draws.normals(8)
    sensor = Draws(seed, "sensor", camid)
    wear = sensor.uniforms(4)
    cast = np.exp(style * (0.04 * normal[0] + 0.025 * normal[1:4]))
    # steps of the golden ratio spread any number of cameras over all sides
    turn = Draws(seed, "sides").uniform() + camid * 0.381966 + 0.06 * draws.uniform()
    yaw = 2 * np.pi * (turn % 1.0)
    return Camera(
        camid=camid,
        yaw=yaw,
        pitch=draws.uniform(0.02, 0.42),
        distance=draws.uniform(4.0, 14.0),
        light=draws.uniform(-1.0, 1.0),
        gains=(float(cast[0]), float(cast[1]), float(cast[2])),
        saturation=float(np.exp(style * (0.08 * normal[4] - 0.05))),
        gamma=float(np.exp(style * 0.06 * normal[5])),
        black=float(style * 0.02 * abs(normal[6])),
        person_height=(48.0 + 130.0 * float(wear[0])) / degradation if degradation else np.inf,
        blur=degradation * (0.25 + 0.6 * float(wear[1])),
        noise=degradation * (0.006 + 0.03 * float(wear[2]) ** 2),
        quality=max(12.0, 100.0 - degradation * (15.0 + 50.0 * float(wear[3]))) if degradation else 100.0,
    )


def sensor_size(camera: Camera, height: int, width: int, *, sharpness: float = 1.0) -> tuple[int, int]:
    """Return the sensor's pixels ``(h, w)`` of a box that becomes ``height x width``, at most as many."""
    share = min(1.0, camera.person_height * sharpness / height)
    return max(8, round(height * share)), max(8, round(width * share))


def expose(rgb: np.ndarray, camera: Camera, exposure: np.ndarray) -> np.ndarray:
    """Return the colours that the camera renders; ``exposure`` ``(T,)`` is the light on each frame."""
    gains = np.array(camera.gains, dtype=np.float32)[:, None, None, None]
    grey = rgb.mean(0)
    rgb = grey + np.float32(camera.saturation) * (rgb - grey)
    rgb *= gains * exposure.astype(np.float32)[:, None, None]
    levels = (np.arange(1025, dtype=np.float64) / 1024) ** camera.gamma
    curve = (camera.black + (1 - camera.black) * levels).astype(np.float32)
    rgb *= np.float32(1024)
    np.clip(rgb, 0, 1024, out=rgb)
    exposed: np.ndarray = curve[rgb.astype(np.int16)]
    return exposed


def record(rgb: np.ndarray, camera: Camera, noise: list[Draws], size: tuple[int, int]) -> torch.Tensor:
    """Blur, add noise, compress and resize: ``(3, T, h, w)`` in [0, 1] to uint8 ``(T, 3, *size)``."""
    channels, num_frames, height, width = rgb.shape
    picture = torch.from_numpy(rgb).transpose(0, 1)  # (T, 3, h, w)
    if camera.blur:
        picture = _resample(picture, (height, width), camera.blur)
    if camera.noise:
        grain = np.stack([draws.noise(channels * height * width) for draws in noise])
        picture = picture + torch.from_numpy(grain).view(num_frames, channels, height, width) * camera.noise
    if camera.quality < 100:
        picture = compress(picture, camera.quality)
    if (height, width) != tuple(size):
        picture = _resample(picture, size, 0.0)
    return (picture * 255.0 + 0.5).clamp_(0, 255).to(torch.uint8).contiguous()


@lru_cache(maxsize=1024)
def _resampling(source: int, target: int, blur: float) -> torch.Tensor:
    """Return the matrix ``(target, source)`` that resizes a row by a triangle or a Gaussian of ``blur`` pixels."""
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    distance = np.abs(centres[:, None] - np.arange(source))
    reach = max(1.0, source / target)
    weights = np.exp(-0.5 * (distance / blur) ** 2) if blur else np.maximum(0.0, 1.0 - distance / reach)
    return torch.from_numpy(weights / weights.sum(1, keepdims=True)).float()


def _resample(picture: torch.Tensor, size: tuple[int, int], blur: float) -> torch.Tensor:
    height, width = picture.shape[-2:]
    return _resampling(height, size[0], blur) @ (picture @ _resampling(width, size[1], blur).T)


_LUMA = torch.tensor([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
_RGB = torch.tensor([[1.0, 0.0, 1.402], [1.0, -0.34414, -0.71414], [1.0, 1.772, 0.0]])
_PLACE = np.add.outer(np.arange(8), np.arange(8))
_COSINES = torch.from_numpy(
    np.cos((2 * np.arange(8) + 1) * np.arange(8)[:, None] * np.pi / 16)
    * np.where(np.arange(8) == 0, 0.5**0.5, 1)[:, None]
    / 2
).float()


def compress(picture: torch.Tensor, quality: float) -> torch.Tensor:
    """Round the cosine coefficients of 8x8 blocks as JPEG does, those of colour more than those of brightness.

    The tables grow linearly with frequency instead of following the standard, and nothing is encoded.
    """
    quality = min(95.0, max(5.0, quality))
    factor = (50.0 / quality if quality < 50 else 2.0 - quality / 50.0) / 255.0
    luma = torch.from_numpy(10.0 + 6.0 * _PLACE).float() * factor
    chroma = torch.from_numpy(17.0 + 16.0 * _PLACE).clamp(max=99.0).float() * factor
    steps = torch.stack([luma, chroma, chroma]).view(3, 1, 8, 1, 8)

    num_frames, channels, height, width = picture.shape
    pad = (0, -width % 8, 0, -height % 8)
    if pad[1] or pad[3]:
        picture = torch.nn.functional.pad(picture, pad, mode="replicate")
    tall, wide = picture.shape[-2:]
    colours = (_LUMA @ picture.reshape(num_frames, channels, -1)).view(num_frames, channels, tall, wide)
    down, across = _blockwise(tall), _blockwise(wide)
    waves = (down @ (colours @ across.T)).view(num_frames, channels, tall // 8, 8, wide // 8, 8)
    waves = (waves / steps).round_() * steps
    colours = down.T @ (waves.view(num_frames, channels, tall, wide) @ across)
    back = _RGB @ colours.reshape(num_frames, channels, -1)
    return back.view(num_frames, channels, tall, wide)[..., :height, :width]


@lru_cache(maxsize=256)
def _blockwise(size: int) -> torch.Tensor:
    """Return the cosine transform of each 8 pixels in a row of ``size`` as one matrix."""
    return torch.block_diag(*[_COSINES] * (size // 8))
