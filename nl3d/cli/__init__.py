"""The command line ``nl3d``: a table of commands, and those of other packages.

A package adds a command by an entry point of the group ``nl3d.commands``: its name is the command, its value a function
that adds the command's parser, as for :func:`register_command`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import nl3d
from nl3d.cli.options import note

INTERRUPTED = 130
REFUSED = 2

AddParser = Callable[[Any], None]

_COMMANDS = {
    "list": ("listing", "nl3d list --model resnet3d50_nl"),
    "info": ("info", "nl3d info bundled"),
    "embed": ("embed", "nl3d embed camera1.mp4 --tracks camera1.txt --output camera1.safetensors"),
    "rank": ("rank", "nl3d rank camera1.safetensors camera2.safetensors --top 5"),
    "evaluate": ("evaluate", "nl3d evaluate query.safetensors gallery.safetensors --metric cosine"),
    "identify": ("identify", "nl3d identify camera1.safetensors camera2.safetensors --output people.csv"),
    "merge": ("merge", "nl3d merge camera1.mp4 --tracks camera1.txt --output longer.txt"),
    "calibrate": ("calibrate", "nl3d calibrate people.safetensors --labels people.csv --output calibration.json"),
    "train": ("train", "nl3d train --weights bundled --dataset tree --root people --output runs/people --num-pids 16"),
    "export": ("export", "nl3d export runs/people --output people.onnx"),
    "show-attention": ("show_attention", "nl3d show-attention people 0001C1 --at 0,40,20 --output attention.png"),
    "gallery": ("gallery", "nl3d gallery find people.gallery camera2.safetensors --since 12h"),
    "demo": ("demo", "nl3d demo --picture ranking.png"),
}
"""Module and example of each command of this package."""

_registered: dict[str, AddParser] = {}


def register_command(name: str, add_parser: AddParser) -> None:
    """Add a command for this process.

    Args:
        name: Name of the command.
        add_parser: Function that is given the subparsers of ``nl3d``. It calls ``add_parser(name, ...)`` on them, adds
            options, and sets the default ``run`` to a function of the parsed arguments. Its return value, if not
            ``None``, is the exit status.

    Raises:
        ValueError: If the name is taken.
    """
    if name in _COMMANDS or name in _registered:
        raise ValueError(f"command must have a name of its own, got {name!r}, which is taken")
    _registered[name] = add_parser


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; no command of this package is imported further than its options."""
    parser = argparse.ArgumentParser(
        prog="nl3d",
        description=nl3d.__doc__.splitlines()[0],
        epilog="example: nl3d demo",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"nl3d {nl3d.__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (module, example) in _COMMANDS.items():
        import_module(f"nl3d.cli.{module}").add_parser(commands)
        commands.choices[name].epilog = f"example: {example}"
        commands.choices[name].formatter_class = _Help
    for add_parser in _registered.values():
        add_parser(commands)
    for entry in entry_points(group="nl3d.commands"):
        if entry.name in commands.choices:
            note(f"command {entry.name!r} of {entry.value} is left out, since the name is taken")
            continue
        try:
            entry.load()(commands)
        except Exception as error:  # a broken package must not break the other commands
            note(f"command {entry.name!r} of {entry.value} cannot be loaded: {type(error).__name__}: {error}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a refusal in one sentence, 130 if interrupted."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 0
    try:
        status = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("\nnl3d: interrupted, nothing was written\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `nl3d rank ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError, FloatingPointError) as error:
        if args.traceback or not _is_refusal(error):
            raise
        sys.stderr.write(f"nl3d: {' '.join(_sentence(error).split())}\n")
        return REFUSED
    return status or 0


class _Help(argparse.HelpFormatter):
    """Fills paragraphs, and leaves examples on one line, to be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("example: ") else super()._fill_text(text, width, indent)


def _is_refusal(error: Exception) -> bool:
    """Return whether a user can mend the error; a fault of ours wants its traceback."""
    return not isinstance(error, RuntimeError) or type(error).__name__ == "OutOfMemoryError"


def _sentence(error: Exception) -> str:
    if type(error).__name__ in ("OutOfMemoryError", "MemoryError"):
        return "out of memory; lower --batch-size"
    return str(error) or type(error).__name__
