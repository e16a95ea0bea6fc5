"""Which frames of a tracklet make a clip: six named strategies, one of them the paper's way to test."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch

Strategy: TypeAlias = Literal["stride", "consecutive", "evenly", "restricted_random", "chunk_start", "dense"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)


def sample_clips(
    length: int,
    num_frames: int,
    strategy: Strategy = "stride",
    *,
    frame_step: int | None = None,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Return frame indices of the clips that a strategy takes from a tracklet: all clips for ``dense``, else one.

    - ``stride``: every ``frame_step``-th frame of ``num_frames * frame_step`` consecutive ones. With step 8 and 8
      frames that is the paper's training clip, eight frames out of 64.
    - ``consecutive``: the same with step 1.
    - ``evenly``: the middle frames of ``num_frames`` equal parts of the whole tracklet.
    - ``restricted_random``: one frame of each of these parts, at random.
    - ``chunk_start``: the first frame of each of ``num_frames`` chunks of ``ceil(length / num_frames)`` frames; where
      chunks lie behind the end, the last frame. STE-NVAN's published results are tested so.
    - ``dense``: all clips of :func:`consecutive_clips`, the paper's way to test.

    A tracklet too short for a clip is looped, in the order of time and back to its start: ``stride`` loops the frames
    that its step meets, ``chunk_start`` repeats the last frame, the others loop all. No tracklet is left out.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3 and 4.2. ``restricted_random`` after Li et al. 2018,
    arXiv:1803.09882 (the paper's reference 22).

    Args:
        length: Frames of the tracklet.
        num_frames: Frames per clip.
        strategy: One of the six.
        frame_step: Frames from one frame of a clip to the next, for ``stride`` (8 if left out) and ``dense`` (1).
        generator: Draws the start of ``stride`` and ``consecutive`` and the frames of ``restricted_random``. Without it
            nothing is random: clips come from the middle.

    Raises:
        ValueError: If the strategy is unknown, a number is below 1, or ``frame_step`` does not belong to the strategy.

    Example:
        >>> sample_clips(64, 8)
        [[0, 8, 16, 24, 32, 40, 48, 56]]
        >>> sample_clips(20, 8, "stride")
        [[0, 8, 16, 0, 8, 16, 0, 8]]
        >>> sample_clips(20, 4, "evenly")
        [[2, 7, 12, 17]]
        >>> sample_clips(10, 4, "dense")
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 8, 9]]
    """
    check_strategy(strategy, num_frames, frame_step)
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    if strategy == "dense":
        return consecutive_clips(length, num_frames, frame_step or 1)
    if strategy == "stride":
        return [_stride(length, num_frames, frame_step or 8, generator)]
    if strategy == "consecutive":
        return [_stride(length, num_frames, 1, generator)]
    if strategy == "chunk_start":
        return [[min(place * -(-length // num_frames), length - 1) for place in range(num_frames)]]
    if length < num_frames:
        return [[place % length for place in range(num_frames)]]
    if strategy == "evenly" or generator is None:
        return [[(2 * place + 1) * length // (2 * num_frames) for place in range(num_frames)]]
    edges = [place * length // num_frames for place in range(num_frames + 1)]
    return [[low + _draw(high - low, generator) for low, high in pairwise(edges)]]


def check_strategy(strategy: str, num_frames: int, frame_step: int | None) -> None:
    """Refuse what :func:`sample_clips` would refuse for any tracklet."""
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(map(repr, STRATEGIES))}, got {strategy!r}")
    if frame_step is not None and strategy not in ("stride", "dense"):
        raise ValueError(f"frame_step must be left out for {strategy!r}, got {frame_step}")
    check_clip_plan(num_frames, 1 if frame_step is None else frame_step)


def check_clip_plan(num_frames: int, frame_step: int) -> None:
    """Refuse clips without frames and steps below 1."""
    for name, value in (("num_frames", num_frames), ("frame_step", frame_step)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def consecutive_clips(length: int, num_frames: int, frame_step: int = 1) -> list[list[int]]:
    """Cut a tracklet into consecutive clips that do not overlap, and return their frame indices.

    The tracklet is cut into spans of ``num_frames * frame_step`` frames, and a clip takes every ``frame_step``-th frame
    of its span, spaced as in training (the paper: eight frames, every eighth of 64). A span cut short by the end of the
    tracklet is looped from its first frame until the clip is full, so that no frame of the step is dropped.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3 ("consecutive nonoverlap tracks") and Sec. 4.2 (the step).

    Example:
        >>> consecutive_clips(10, 4)
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 8, 9]]
        >>> consecutive_clips(10, 4, frame_step=2)
        [[0, 2, 4, 6], [8, 8, 8, 8]]
    """
    check_clip_plan(num_frames, frame_step)
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    count = count_clips(length, num_frames, frame_step)
    return [clip_places(length, number, num_frames, frame_step) for number in range(count)]


def count_clips(length: int, num_frames: int, frame_step: int) -> int:
    """Return the number of :func:`consecutive_clips`."""
    return -(-length // (num_frames * frame_step))


def clip_places(length: int, number: int, num_frames: int, frame_step: int) -> list[int]:
    """Return the frame indices of one of :func:`consecutive_clips`, without listing the others."""
    span = range(0, length, frame_step)[number * num_frames : (number + 1) * num_frames]
    return [span[place % len(span)] for place in range(num_frames)]


def generator_from(*numbers: int) -> torch.Generator:
    """Return a generator that depends on some whole numbers, from 0 on, and on nothing else.

    Example:
        >>> torch.equal(torch.rand(2, generator=generator_from(0, 1)), torch.rand(2, generator=generator_from(1, 0)))
        False
    """
    if min(numbers) < 0:
        raise ValueError(f"seeds must be at least 0, got {min(numbers)}")
    mixed = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]) << 32 | int(mixed[1]))


def _stride(length: int, num_frames: int, step: int, generator: torch.Generator | None) -> list[int]:
    spare = length - num_frames * step
    if spare >= 0:
        start = spare // 2 if generator is None else _draw(spare + 1, generator)
        return list(range(start, start + num_frames * step, step))
    # too short: only the first frame is drawn, which decides the frames that the step meets
    start = 0 if generator is None else _draw(min(step, length), generator)
    met = range(start, length, step)
    return [met[place % len(met)] for place in range(num_frames)]


def _draw(choices: int, generator: torch.Generator) -> int:
    return int(torch.randint(choices, (), generator=generator))
