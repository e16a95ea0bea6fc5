"""A command line made of the dataclass: every option with its default, read from one place."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from nl3d.training.config import RECIPES, TrainingConfig, choices_of, recipe_values


def add_options(parser: argparse.ArgumentParser, *, leave_out: Sequence[str] = ()) -> None:
    """Add ``--recipe`` and one flag for each option of :class:`TrainingConfig`; ``--help`` shows the paper's."""
    parser.add_argument("--recipe", choices=RECIPES, default="paper", help="where all other defaults come from")
    group = parser.add_argument_group(
        "configuration", "defaults of the recipe 'paper'; 'modern' changes: " + _changes()
    )
    for item in dataclasses.fields(TrainingConfig):
        if item.name in leave_out:
            continue
        default = item.default if item.default is not dataclasses.MISSING else {}
        flag = "--" + item.name.replace("_", "-")
        text = f"{item.metadata['help']} (default: {'off' if default is False else default})".replace("%", "%%")
        options: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS, "help": text}
        if isinstance(default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        elif isinstance(default, dict):
            group.add_argument(flag, type=_json_object, metavar="JSON", **options)
        elif choices_of(item):
            group.add_argument(flag, choices=choices_of(item), **options)
        else:
            kind = str if default is None else type(default)
            group.add_argument(flag, type=kind, metavar=kind.__name__.upper(), **options)


def config_from(arguments: argparse.Namespace, **changes: Any) -> TrainingConfig:
    """Configuration of parsed arguments: the recipe, then the flags that were given, then ``changes``."""
    known = {item.name for item in dataclasses.fields(TrainingConfig)}
    given = {name: value for name, value in vars(arguments).items() if name in known}
    return TrainingConfig(**{**recipe_values(arguments.recipe), **given, **changes})


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"must be JSON such as '{{\"size\": [64, 32]}}', got {text!r}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object, got {text!r}")
    return value


def _changes() -> str:
    return ", ".join(f"{name} {value}" for name, value in recipe_values("modern").items())
