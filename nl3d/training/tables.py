"""Tables of several runs, in Markdown: mean and deviation over seeds, beside the paper's numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from nl3d.training.config import TrainingConfig
from nl3d.training.run import RESULT, run_training

SCORES = ("rank-1", "rank-5", "rank-10", "mAP")


def scores_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The four scores of the paper's tables, in percent, of the result of a run."""
    cmc = result["cmc"]
    return {
        "rank-1": 100 * cmc["1"],
        "rank-5": 100 * cmc["5"],
        "rank-10": 100 * cmc["10"],
        "mAP": 100 * result["mAP"],
    }


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean and sample deviation, the latter from two values on.

    Example:
        >>> mean_and_deviation([80.0, 82.0]), mean_and_deviation([80.0]), mean_and_deviation([])
        ('81.0 ± 1.4', '80.0', '')
    """
    if not values:
        return ""
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def train_row(
    config: TrainingConfig, folder: str | Path, *, seeds: Sequence[int], splits: Sequence[int] = (0,), **options: Any
) -> list[dict[str, Any]]:
    """Train a row once for each seed and split, each in a folder of its own; what is done already is not done again.

    Args:
        config: What to train; its seed and split are replaced.
        folder: Folder of the row.
        seeds: Seeds to train with.
        splits: Splits of the data set to train on.
        options: As for :func:`~nl3d.training.run.run_training`.
    """
    return [
        run_training(replace(config, seed=seed, split=split), Path(folder) / f"seed-{seed}-split-{split}", **options)
        for seed in seeds
        for split in splits
    ]


def read_rows(folder: str | Path, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Results of the finished runs of each row of a table's folder."""
    rows = {name: sorted((Path(folder) / name).glob(f"seed-*/{RESULT}")) for name in names}
    return {name: [json.loads(path.read_text())["result"] for path in paths] for name, paths in rows.items()}


def describe_runs(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What all runs of a table have in common, or that they have not."""
    results = [result for runs in rows.values() for result in runs]
    parts = []
    for name in ("dataset", "protocol", "ap", "num_valid_queries", "num_gallery", "epoch"):
        values = sorted({str(result.get(name)) for result in results})
        parts.append(f"{name.replace('_', ' ')}: {' / '.join(values)}")
    seeds = sorted({result["seed"] for result in results})
    return "; ".join([*parts, f"seeds: {', '.join(map(str, seeds))}"]) if results else "no run is finished"


def markdown_table(rows: Mapping[str, Sequence[Mapping[str, Any]]], paper: Mapping[str, Mapping[str, float]]) -> str:
    """One line a row: network, number of finished runs, each score as mean and deviation, and the paper's, on MARS.

    Args:
        rows: Name of each row to the results of its runs.
        paper: Name of a row to the paper's scores, in percent.

    Example:
        >>> runs = [{"model": "small_tp", "cmc": {"1": 0.5, "5": 0.75, "10": 1.0}, "mAP": 0.6}]
        >>> print(markdown_table({"baseline": runs}, {"baseline": {"rank-1": 77.9, "mAP": 69.0}}))
        | | network | runs | parameters | rank-1 | rank-5 | rank-10 | mAP | paper: rank-1 | rank-5 | rank-10 | mAP |
        |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
        | baseline | small_tp | 1 | | 50.0 | 75.0 | 100.0 | 60.0 | 77.9 | | | 69.0 |
    """
    head = ["", "network", "runs", "parameters", *SCORES, f"paper: {SCORES[0]}", *SCORES[1:]]
    lines = [_line(head), "|---|---|" + "--:|" * (len(head) - 2)]
    for name, results in rows.items():
        scores = [scores_of(result) for result in results]
        networks = ", ".join(sorted({result["model"] for result in results}))
        sizes = sorted({f"{result['parameters'] / 1e6:.2f} M" for result in results if "parameters" in result})
        own = [mean_and_deviation([score[column] for score in scores]) for column in SCORES]
        printed = [f"{paper[name][column]:.1f}" if column in paper.get(name, {}) else "" for column in SCORES]
        lines.append(_line([name, networks, str(len(results)), ", ".join(sizes), *own, *printed]))
    return "\n".join(lines)


def split_summary(results: Sequence[Mapping[str, Any]]) -> str:
    """Mean and deviation over splits, in a line.

    Example:
        >>> split_summary([{"cmc": {"1": r, "5": 1.0, "10": 1.0}, "mAP": 0.9} for r in (0.8, 0.9)])
        '2 splits: rank-1 85.0 ± 7.1 %, rank-5 100.0 ± 0.0 %, rank-10 100.0 ± 0.0 %, mAP 90.0 ± 0.0 %'
    """
    scores = [scores_of(result) for result in results]
    parts = [f"{column} {mean_and_deviation([score[column] for score in scores])} %" for column in SCORES]
    return f"{len(results)} splits: {', '.join(parts)}"


def _line(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"
