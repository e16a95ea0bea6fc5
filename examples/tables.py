"""Code that the two tables share: their command line, and a Markdown table of the finished runs."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nl3d.training.checkpoint import write_text
from nl3d.training.config import add_options, config_from
from nl3d.training.loop import NotFiniteError
from nl3d.training.ranks import make_accelerator
from nl3d.training.run import RESULT, run_training
from nl3d.training.summary import SCORES, mean_and_deviation, scores_of

# A table in small: half as wide a ResNet-18, on walkers of 64x32 pixels. Any of it can be overridden by its flag.
SMALL: dict[str, Any] = {
    "height": 64,
    "width": 32,
    "last_stride": 1,
    "embedding_dim": 128,
    "num_pids": 16,
    "lr": 1e-3,  # the paper's 3e-4 is for fine-tuning; these start from nothing
    "epochs": 30,
    "eval_every": 30,
    "precision": "no",
    "num_workers": 0,
}


@dataclass(frozen=True, eq=False)
class Row:
    """A row of a table: label, the paper's scores, options at full size and in small, and its label in small."""

    label: str
    paper: Mapping[str, float]
    real: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)
    small_label: str = ""


def main(
    about: str | None, rows: Mapping[str, Row], changes: Callable[[argparse.Namespace, Row], Mapping[str, Any]]
) -> int:
    """Train a row, if one is named, print the table of the finished runs, and return the exit status."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=tuple(rows), help="row to train; none to print the table only")
    parser.add_argument("--output", type=Path, required=True, help="folder of the table")
    parser.add_argument("--network", choices=("real", "small"), default="real", help="ResNet-50, or a small ResNet-18")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run each (default: 0 1 2)")
    parser.add_argument("--splits", type=int, nargs="+", default=[0], help="splits of iLIDS-VID and PRID2011")
    add_options(parser, leave_out=("model", "seed", "split"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        main_process = train(arguments, rows[arguments.row], changes) if arguments.row else True
    except (ValueError, TypeError, OSError, ModuleNotFoundError, NotFiniteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if main_process:
        show(arguments.output, rows)
    return 0


def train(
    arguments: argparse.Namespace, row: Row, changes: Callable[[argparse.Namespace, Row], Mapping[str, Any]]
) -> bool:
    """Train all runs of a row, and return whether this process prints."""
    differs = {name: value for name, value in changes(arguments, row).items() if not hasattr(arguments, name)}
    config = config_from(arguments, **differs)
    accelerator = make_accelerator(config)
    folder = arguments.output / arguments.row
    for seed in arguments.seeds:
        for split in arguments.splits:  # runs that are finished are not repeated
            run_training(
                replace(config, seed=seed, split=split),
                folder / f"seed-{seed}-split-{split}",
                accelerator=accelerator,
                progress=sys.stderr.isatty(),
            )
    return accelerator.is_main_process


def show(folder: Path, rows: Mapping[str, Row]) -> None:
    """Print the table, and write it beside the runs."""
    results = read_rows(folder, tuple(rows))
    small = any(result["model"].startswith("small_") for runs in results.values() for result in runs)
    labels = {name: (small and row.small_label) or row.label for name, row in rows.items()}
    labelled = {labels[name]: runs for name, runs in results.items()}
    paper = {labels[name]: row.paper for name, row in rows.items()}
    text = f"{markdown_table(labelled, paper)}\n\n{describe_runs(results)}\n"
    write_text(folder / "table.md", text)
    print(text)


def read_rows(folder: str | Path, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Read the results of the finished runs of each row."""
    rows = {name: sorted((Path(folder) / name).glob(f"seed-*/{RESULT}")) for name in names}
    return {name: [json.loads(path.read_text())["result"] for path in paths] for name, paths in rows.items()}


def describe_runs(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Format what all runs of a table have in common, and where they differ."""
    results = [result for runs in rows.values() for result in runs]
    parts = []
    for name in ("dataset", "protocol", "ap", "num_valid_queries", "num_gallery", "epoch"):
        values = sorted({str(result.get(name)) for result in results})
        parts.append(f"{name.replace('_', ' ')}: {' / '.join(values)}")
    seeds = sorted({result["seed"] for result in results})
    return "; ".join([*parts, f"seeds: {', '.join(map(str, seeds))}"]) if results else "no run is finished"


def markdown_table(rows: Mapping[str, Sequence[Mapping[str, Any]]], paper: Mapping[str, Mapping[str, float]]) -> str:
    """Format one line per row: network, number of finished runs, mean and deviation of each score, the paper's scores.

    Args:
        rows: Name of each row to the results of its runs.
        paper: Name of a row to the paper's scores, in percent.
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


def _line(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


if __name__ == "__main__":
    sys.exit("run table2.py or table3.py")
