"""The command line: ``nl3d list | embed | rank | evaluate | demo``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import nl3d
from nl3d.cli import demo, embed, evaluate, listing, rank

INTERRUPTED = 130
REFUSED = 2


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands; no command is imported further than its options."""
    parser = argparse.ArgumentParser(prog="nl3d", description=nl3d.__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"nl3d {nl3d.__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (listing, embed, rank, evaluate, demo):
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a refusal in one sentence, 130 if interrupted."""
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("\nnl3d: interrupted, nothing was written\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `nl3d rank ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if args.traceback or not _is_refusal(error):
            raise
        sys.stderr.write(f"nl3d: {' '.join(_sentence(error).split())}\n")
        return REFUSED
    return 0


def _is_refusal(error: Exception) -> bool:
    """Tell what a user can mend from a fault of ours, whose traceback is wanted."""
    return not isinstance(error, RuntimeError) or type(error).__name__ == "OutOfMemoryError"


def _sentence(error: Exception) -> str:
    if type(error).__name__ in ("OutOfMemoryError", "MemoryError"):
        return "out of memory; lower --batch-size"
    return str(error) or type(error).__name__
