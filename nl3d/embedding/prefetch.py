"""Decode ahead of the network, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TypeVar

Item = TypeVar("Item")


class _End:
    """Comes after the last item."""

    error: BaseException | None = None


def prefetch(items: Iterator[Item], ahead: int) -> Generator[Item, None, None]:
    """Run an iterator in a thread, at most ``ahead`` items before its reader; its errors are raised to the reader.

    Decoding and resizing release Python's lock, so that they go on while the network computes. When the reader stops
    early, the thread stops at its next item.

    Args:
        items: What to read.
        ahead: Items that may wait, the bound on memory.

    Example:
        >>> list(prefetch(iter([1, 2, 3]), ahead=2))
        [1, 2, 3]
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(item: Item | _End) -> bool:
        while not stopped.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return True
        return False

    def work() -> None:
        end = _End()
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # handed to the reader, who raises it
            end.error = error
        put(end)

    thread = threading.Thread(target=work, name="nl3d-prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join()
        if isinstance(items, Generator):
            items.close()  # lets go of the file it reads
