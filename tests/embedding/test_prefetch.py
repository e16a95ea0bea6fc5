import threading

import pytest

from nl3d.embedding.prefetch import prefetch


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "nl3d-prefetch"]


def test_gives_the_same_items_in_order():
    assert list(prefetch(iter(range(50)), ahead=3)) == list(range(50))
    assert not workers()


def test_runs_ahead_no_further_than_it_may():
    made = []

    def items():
        for item in range(20):
            made.append(item)
            yield item

    reader = prefetch(items(), ahead=2)
    next(reader)
    for _ in range(100):
        if len(made) == 4:  # the one read, two waiting, one that waits for a place
            break
        threading.Event().wait(0.01)
    threading.Event().wait(0.05)
    assert len(made) == 4
    reader.close()


def test_raises_the_error_after_what_came_before_it():
    def items():
        yield 1
        raise ValueError("no more")

    reader = prefetch(items(), ahead=5)
    assert next(reader) == 1
    with pytest.raises(ValueError, match="no more"):
        next(reader)


def test_closing_stops_the_thread_and_closes_the_source():
    closed = []

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    reader = prefetch(items(), ahead=2)
    next(reader)
    reader.close()
    assert closed == [True]
    assert not workers()
