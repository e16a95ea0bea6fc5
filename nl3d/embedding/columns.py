"""Batches of columns, as Ray Data, Spark and Hugging Face datasets pass them to a function."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nl3d.data.clips.batches import SourceReport
from nl3d.data.crops import to_tracklets
from nl3d.data.frames.names import list_frames
from nl3d.data.readers.columns import import_pyarrow, to_columns
from nl3d.data.tracklet_source import TrackletSource
from nl3d.embedding.loading import progress_bar

if TYPE_CHECKING:
    from nl3d.embedding.embedder import TrackletEmbedder

VECTOR = "embedding"


def embed_columns(embedder: TrackletEmbedder, batch: Any) -> Any:
    """Embed a batch with one tracklet per row; see :meth:`nl3d.TrackletEmbedder.__call__`."""
    if isinstance(batch, Iterator):  # Spark's mapInPandas
        return (embed_columns(embedder, each) for each in batch)
    columns = to_columns(batch)
    source = TrackletSource(_tracklets(columns))
    parts, report = [range(len(source.records))], SourceReport()
    ((_, vectors),) = embedder.averages(source, parts, report, progress_bar(0, False))
    rows = vectors.numpy()
    if isinstance(batch, Mapping):
        return {**{name: cells for name, cells in batch.items() if name != "frames"}, VECTOR: rows}
    kept = [name for name in columns if name != "frames"]
    if hasattr(batch, "append_column"):
        arrow = import_pyarrow("pyarrow", "a batch of Arrow")
        lists = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.reshape(-1)), rows.shape[1])
        return batch.select(kept).append_column(VECTOR, lists)
    return batch[kept].assign(**{VECTOR: list(rows)})


def _tracklets(columns: Mapping[str, Sequence[Any]]) -> list[Any]:
    if "frames" in columns:
        return list(to_tracklets(_frames(cell) for cell in columns["frames"]))
    if "path" not in columns:
        raise ValueError(
            "batch must have a column frames, the images of one tracklet per row, or path, a folder of them, got "
            f"{', '.join(map(str, columns)) or 'none'}"
        )
    image = next((path for path in columns["path"] if not Path(path).is_dir()), None)
    if image is not None:
        raise ValueError(
            f"path must be a folder of one tracklet's images, got {str(image)!r}; collect the images of each tracklet "
            "in one row, as a list in a column frames"
        )
    return list(to_tracklets(list_frames(Path(str(path))) for path in columns["path"]))


def _frames(cell: Any) -> Any:
    """Return the frames of a cell; encoded images, as datasets hold them, are opened."""
    if hasattr(cell, "ndim") and cell.ndim > 1:
        return cell
    return cell if isinstance(cell, str | bytes) else [_frame(frame) for frame in cell]


def _frame(frame: Any) -> Any:
    from PIL import Image

    if isinstance(frame, Mapping) and {"bytes", "path"} & {*frame}:  # an image of datasets that is not decoded
        frame = frame.get("bytes") or frame.get("path")
    return Image.open(io.BytesIO(frame)) if isinstance(frame, bytes) else frame
