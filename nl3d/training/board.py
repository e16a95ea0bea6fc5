"""TensorBoard's view of a run: scalars by step, and one CMC curve per evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Board:
    """Writer of TensorBoard's files into a run's folder ``board``.

    Each CMC curve is a run of its own, with ranks for steps, so TensorBoard draws the curves of all evaluations into
    one plot and no plotting library is needed.
    """

    def __init__(self, run: Path, *, active: bool = True) -> None:
        self.folder = run / "board"
        self.active = active
        self._writer: Any = None

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """Write from a step on; what a killed run wrote after that step is hidden."""
        if self.active:
            self._writer = _writer_class()(str(self.folder), purge_step=step + 1)
        try:
            yield
        finally:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def losses(self, step: int, losses: Mapping[str, float], rate: float) -> None:
        """Write the loss of a step, its terms, and the learning rate."""
        if self._writer is not None:
            for name, value in losses.items():
                self._writer.add_scalar(f"loss/{name}", value, step)
            self._writer.add_scalar("learning_rate", rate, step)

    def scores(self, step: int, epoch: int, scores: dict[str, Any]) -> None:
        """Write an evaluation."""
        if self._writer is None:
            return
        for name in ("mAP", "mINP"):
            self._writer.add_scalar(f"evaluation/{name}", scores[name], step)
        for rank in ("1", "5"):
            self._writer.add_scalar(f"evaluation/rank-{rank}", scores["cmc"][rank], step)
        curve = _writer_class()(str(self.folder / f"cmc-epoch-{epoch:04d}"), purge_step=0)
        for rank, value in scores["cmc"].items():
            curve.add_scalar("CMC", value, int(rank))
        curve.close()


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ModuleNotFoundError(
            "training writes for TensorBoard, which is not installed; install nl3d with the extra 'train', or pass "
            "--no-board (board=False)"
        ) from error
    return SummaryWriter
