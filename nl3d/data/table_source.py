"""Tracklets of a table of any size, read when they are decoded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from nl3d.data.clips.batches import Record
from nl3d.data.readers.table_index import TableIndex
from nl3d.data.tracklet_source import TrackletSource
from nl3d.data.tracklets import Tracklet

AT_ONCE = 256  # tracklets whose rows are read together
KEPT = 4  # such blocks, a few because the tracklets of one batch may lie in two


class IndexedTracklets(Sequence[Tracklet]):
    """Tracklets of an indexed table; a few hundred of them are held at a time."""

    def __init__(self, table: TableIndex) -> None:
        self.table = table
        self._blocks: OrderedDict[int, list[Tracklet]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> Tracklet:  # type: ignore[override]
        if not 0 <= row < len(self):
            raise IndexError(f"row must be below {len(self)}, got {row}")
        number, place = divmod(row, AT_ONCE)
        if number not in self._blocks:
            if len(self._blocks) == KEPT:
                self._blocks.popitem(last=False)
            stop = min((number + 1) * AT_ONCE, len(self))
            self._blocks[number] = self.table.read(range(number * AT_ONCE, stop))
        self._blocks.move_to_end(number)
        return self._blocks[number][place]


class TableSource(TrackletSource):
    """Tracklets of an indexed table.

    Args:
        index: Where they stand.
    """

    def __init__(self, index: TableIndex) -> None:
        self.index = index
        self.path, self.tracks = index.path, None
        self.tracklets = IndexedTracklets(index)
        self.lengths = index.lengths.tolist()
        self.total_frames = sum(self.lengths)

    def part(self, rows: range) -> TableSource:
        """Return some tracklets that follow each other as a source of their own."""
        return TableSource(self.index[rows])

    def record(self, row: int) -> Record:
        """Return what is known of a tracklet; its numbers are not, since they depend on the whole table."""
        tracklet = self.tracklets[row]
        return Record(tracklet.name, 0, person=tracklet.person, camera=tracklet.camera)

    def max_workers(self) -> int:
        """Return how many workers can decode at once: any number."""
        return len(self.tracklets)
