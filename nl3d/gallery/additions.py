"""Tracklets as rows of a gallery, checked before anything is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nl3d.data.frames.images import encode_jpeg
from nl3d.data.frames.names import is_utf8
from nl3d.data.labels import parse_label
from nl3d.embedding.embeddings import Embeddings, require_same_maker
from nl3d.gallery.times import Time, parse_time
from nl3d.retrieval.ranking import open_embedded

MAKER = ("model", "weights", "network", "output", "preprocessing")
THUMBNAIL_SIZE = 128, 64  # height and width that a thumbnail fits into, in pixels
JPEG_QUALITY = 85


class Row(NamedTuple):
    """A tracklet as it is stored, in the order of the columns."""

    name: str
    person: str | None
    camera: str | None
    first_frame: int | None
    last_frame: int | None
    first_time: float | None
    last_time: float | None
    added: float


def make_rows(
    embeddings: Embeddings,
    *,
    prefix: str,
    person: str | None,
    camera: str | None,
    start: Time | None,
    fps: float | None,
    added: float,
) -> list[Row]:
    """Describe tracklets as :meth:`nl3d.Gallery.add` is told to.

    Raises:
        ValueError: If start and frame rate are not both given, or the frames are not known that they need; or a
            tracklet ends before it starts, or a label is none.
    """
    if (start is None) != (fps is None):
        raise ValueError("start and fps must be given together: the time of frame 1, and frames per second")
    ranges = None if embeddings.frame_ranges is None else embeddings.frame_ranges.tolist()
    began = None if start is None else parse_time(start, name="start")
    if fps is not None and not 0 < fps < 1e6:
        raise ValueError(f"fps must be a number of frames per second above 0, got {fps}")
    if began is not None and ranges is None:
        raise ValueError("start needs the first and last frame of each tracklet, which these embeddings lack")
    person, camera = (None if label is None else parse_label(label) for label in (person, camera))
    rows = []
    for place, name in enumerate(embeddings.names):
        frames: tuple[int | None, int | None] = (None, None)
        times: tuple[float | None, float | None] = (None, None)
        if ranges is not None:
            first, last = ranges[place]
            if last < first:
                raise ValueError(f"tracklet {name!r} must not end before it starts, got frames {first} to {last}")
            frames = first, last
            if began is not None and fps is not None:
                times = began + (first - 1) / fps, began + (last - 1) / fps
        labels = _label(embeddings.people, place) or person, _label(embeddings.cameras, place) or camera
        rows.append(Row(prefix + name, *labels, *frames, *times, added))
        if not is_utf8(rows[-1].name):
            raise ValueError(f"name must be UTF-8, got {rows[-1].name!r}")
    return rows


def _label(labels: tuple[str | None, ...] | None, place: int) -> str | None:
    return None if labels is None else labels[place]


def merge_maker(known: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Return what made the vectors of a gallery after some were added.

    Raises:
        ValueError: If another network, or another layer of it, made them.
    """
    require_same_maker(added, known)
    return {key: text for key in MAKER if (text := known.get(key) or added.get(key))}


def choose_thumbnails(
    embeddings: Embeddings, wanted: bool | Mapping[str, Tensor]
) -> tuple[dict[str, bytes], str | None]:
    """Return thumbnails by name as :meth:`nl3d.Gallery.add` is told to, and why some are missing, if they are.

    Raises:
        ValueError: If an image is given for a tracklet that there is not.
    """
    if isinstance(wanted, Mapping):
        unknown = set(wanted).difference(embeddings.names)
        if unknown:
            raise ValueError(f"thumbnails must be named as the tracklets are, got {min(unknown)!r}")
        return {name: encode_thumbnail(image) for name, image in wanted.items()}, None
    if not wanted:
        return {}, None
    try:
        images = dict(_middle_frames(embeddings))
    except (OSError, ValueError, ImportError) as error:
        return {}, f"no thumbnails were added: {error}"
    missing = len(embeddings) - len(images)
    return images, f"{missing} tracklets have no thumbnail, since no middle frame can be read" if missing else None


def _middle_frames(embeddings: Embeddings) -> Iterator[tuple[str, bytes]]:
    """Yield the middle frame of each tracklet, from what it was embedded from."""
    source = open_embedded(embeddings, None, "source")
    at_once = len(embeddings) if embeddings.metadata.get("tracks") else 256  # a video is decoded once
    for start in range(0, len(embeddings), at_once):
        for name, image in source.middle_frames(embeddings.names[start : start + at_once]).items():
            yield name, encode_thumbnail(image)


def encode_thumbnail(image: Tensor) -> bytes:
    """Encode an image ``(3, H, W)`` uint8 as a small JPEG of the same proportions."""
    scale = min(1.0, *(wanted / given for wanted, given in zip(THUMBNAIL_SIZE, image.shape[1:], strict=True)))
    if scale < 1:
        size = [max(1, round(scale * given)) for given in image.shape[1:]]
        image = torch.nn.functional.interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0]
        image = image.round().clamp(0, 255).to(torch.uint8)
    return encode_jpeg(image, quality=JPEG_QUALITY)


def to_json(maker: Mapping[str, str]) -> str:
    """Return what made the vectors as it is stored."""
    return json.dumps(dict(maker), sort_keys=True)


def from_json(text: str | None) -> dict[str, Any]:
    """Return what :func:`to_json` took."""
    return json.loads(text) if text else {}
