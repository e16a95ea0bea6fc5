"""What the two tables share: their command line, and a Markdown table of the runs that are done."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nl3d.training.checkpoint import write_text
from nl3d.training.config import add_options, config_from
from nl3d.training.loop import NotFiniteError
from nl3d.training.ranks import make_accelerator
from nl3d.training.tables import describe_runs, markdown_table, read_rows, train_row

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
    """A row of a table: label, the paper's scores, what it differs in at full size and in small, its label there."""

    label: str
    paper: Mapping[str, float]
    real: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)
    small_label: str = ""


def main(
    about: str | None, rows: Mapping[str, Row], changes: Callable[[argparse.Namespace, Row], Mapping[str, Any]]
) -> int:
    """Train a row, if one is named, and print the table of what is done; gives the exit status."""
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
    """Train all runs of a row; whether this is the process that prints."""
    differs = {name: value for name, value in changes(arguments, row).items() if not hasattr(arguments, name)}
    config = config_from(arguments, **differs)
    accelerator = make_accelerator(config)
    train_row(
        config,
        arguments.output / arguments.row,
        seeds=arguments.seeds,
        splits=arguments.splits,
        accelerator=accelerator,
        progress=sys.stderr.isatty(),
    )
    return accelerator.is_main_process


def show(folder: Path, rows: Mapping[str, Row]) -> None:
    """Print the table and leave it beside the runs."""
    results = read_rows(folder, tuple(rows))
    small = any(result["model"].startswith("small_") for runs in results.values() for result in runs)
    labels = {name: (small and row.small_label) or row.label for name, row in rows.items()}
    labelled = {labels[name]: runs for name, runs in results.items()}
    paper = {labels[name]: row.paper for name, row in rows.items()}
    text = f"{markdown_table(labelled, paper)}\n\n{describe_runs(results)}\n"
    write_text(folder / "table.md", text)
    print(text)


if __name__ == "__main__":
    sys.exit("run table2.py or table3.py")
