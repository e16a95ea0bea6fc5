"""Random halves of the people of a data set, drawn from a seed and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from nl3d.data.frames.names import require_file
from nl3d.files import replacing


class Split(NamedTuple):
    """Names of the people to train on and of those to test on."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def draw_splits(people: Sequence[str], seed: int, *, num_splits: int = 10) -> list[Split]:
    """Cut people in halves at random, several times. Of an odd number, training gets one more.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 4.2 ("randomly split into 50% of persons for testing").
    """
    ordered = sorted(set(people))
    if len(ordered) != len(people) or len(ordered) < 2:
        raise ValueError(f"people must be at least two that differ, got {len(people)} of which {len(ordered)} differ")
    generator = torch.Generator().manual_seed(seed)
    splits = []
    for _ in range(num_splits):
        shuffled = torch.randperm(len(ordered), generator=generator).tolist()
        half = len(ordered) // 2
        test, train = sorted(shuffled[:half]), sorted(shuffled[half:])
        splits.append(Split(tuple(ordered[i] for i in train), tuple(ordered[i] for i in test)))
    return splits


def save_splits(path: str | Path, splits: Sequence[Split]) -> None:
    """Write splits as JSON, ``[{"train": [...], "test": [...]}, ...]``."""
    text = json.dumps([{"train": split.train, "test": split.test} for split in splits], indent=1)
    with replacing(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def load_splits(path: str | Path) -> list[Split]:
    """Read splits from JSON, as :func:`save_splits` and torchreid write them."""
    path = require_file(path, what="split file", remedy="give a seed to draw splits and save them")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        splits = [Split(tuple(map(str, entry["train"])), tuple(map(str, entry["test"]))) for entry in entries]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f'split file {str(path)!r} must be JSON of the form [{{"train": [...], "test": [...]}}, ...], '
            f"but does not parse: {error}"
        ) from error
    if not splits:
        raise ValueError(f"split file {str(path)!r} must hold at least one split, got none")
    for place, split in enumerate(splits):
        both = {name for name in split.train if name in set(split.test)}
        if both:
            raise ValueError(f"split {place} of {str(path)!r} must have people in one half, got {min(both)!r} in both")
        if not split.train or not split.test:
            raise ValueError(f"split {place} of {str(path)!r} must have people in both halves, got an empty one")
    return splits


def choose_splits(
    root: Path,
    split_file: str | Path | None,
    seed: int | None,
    *,
    people: Callable[[], Sequence[str]],
    published: tuple[str | Path, str],
    read: Callable[[Path], list[Split]] = load_splits,
) -> tuple[list[Split], str]:
    """Read or draw the splits that a reader was asked for; return them and the name of their protocol.

    Args:
        root: Folder of the data set.
        split_file: File to read instead of the published one, or to keep drawn splits in.
        seed: Seed to draw splits from, kept in ``splits_seed<seed>.json`` below ``root`` by default.
        people: Names of the people to draw from.
        published: Path of the published file below ``root``, and the name of its protocol.
        read: Function that reads a file of splits.
    """
    if seed is not None:
        path = Path(split_file) if split_file is not None else root / f"splits_seed{seed}.json"
        return drawn_splits(path, people(), seed), f"seed {seed}"
    if split_file is not None:
        return read(Path(split_file)), Path(split_file).name
    return read(root / published[0]), published[1]


def drawn_splits(path: str | Path, people: Sequence[str], seed: int, *, num_splits: int = 10) -> list[Split]:
    """Read splits from a file, or draw them and write the file if there is none."""
    path = Path(path)
    if not path.is_file():
        save_splits(path, draw_splits(people, seed, num_splits=num_splits))
    splits = load_splits(path)
    for place, split in enumerate(splits):
        others = {*split.train, *split.test} ^ set(people)
        if others:
            raise ValueError(
                f"split {place} of {str(path)!r} must hold the people of the data set, but {min(others)!r} is in "
                "one of the two only; delete the file to draw anew"
            )
    return splits
