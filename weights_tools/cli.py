"""The command ``nl3d-weights``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from nl3d.files import check_output, replacing
from weights_tools.convert import convert
from weights_tools.describe import describe
from weights_tools.diff import diff
from weights_tools.publish import card, prepare, publish
from weights_tools.pull import pull
from weights_tools.verify import verify

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 if all is well, 1 if files differ or do not verify, 2 for bad input."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (OSError, TypeError, ValueError) as error:
        sys.stderr.write(f"nl3d-weights: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nl3d-weights", description="Tell, convert, check and publish checkpoints.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        return sub

    def family(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--family", help="project that wrote the file, where the file alone does not show it")

    sub = verb("detect", _detect, "Tell a checkpoint's family and network.")
    sub.add_argument("file")
    sub.add_argument("--json", action="store_true", help="print JSON")
    family(sub)

    sub = verb("convert", _convert, "Write a checkpoint as safetensors in nl3d's own names.")
    sub.add_argument("file")
    sub.add_argument("--output", required=True, help="file to write, such as model.safetensors")
    sub.add_argument("--num-classes", type=int, help="classes to keep or make; the file's if left out, 0 for none")
    sub.add_argument("--layout", choices=("separable", "i3d", "full"), help="layout to inflate into")
    sub.add_argument("--time-kernel", type=int, help="frames that temporal kernels span")
    sub.add_argument("--approximate", action="store_true", help="let full kernels become the nearest separable ones")
    sub.add_argument("--source", help="where the file is published; its name if left out")
    sub.add_argument("--license", help="SPDX identifier of the weights")
    sub.add_argument("--dtype", choices=tuple(DTYPES), default="float32", help="kind of number to store")
    sub.add_argument("--overwrite", action="store_true", help="replace the output if it is there")
    family(sub)

    sub = verb("verify", _verify, "Compare a checkpoint's outputs with those of the original code.")
    sub.add_argument("file")
    sub.add_argument("--against", required=True, help="parity file: safetensors with input and out/...")
    sub.add_argument("--tolerance", type=float, default=1e-4, help="largest error allowed, of the largest value")
    family(sub)

    sub = verb("diff", _diff, "List the tensors in which two checkpoints differ.")
    sub.add_argument("first")
    sub.add_argument("second")

    sub = verb("card", _card, "Write the model card of a converted file.")
    sub.add_argument("file")
    sub.add_argument("--output", help="file to write instead of printing")
    sub.add_argument("--repo", default="ORG/NAME", help="repository that the card speaks of")
    sub.add_argument("--overwrite", action="store_true", help="replace the output if it is there")

    sub = verb("publish", _publish, "Send a converted file, its configuration and its card to the Hub in one commit.")
    sub.add_argument("file")
    sub.add_argument("--repo", required=True, help="org/name")
    sub.add_argument("--private", action="store_true", help="make the repository private, if it is new")
    sub.add_argument("--message", default="Publish weights", help="message of the commit")
    sub.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")

    sub = verb("pull", _pull, "Fetch weights into the Hub's cache and print the path.")
    sub.add_argument("name", help="resnet3d50_nl.imagenet, or hf-hub:org/name[@revision]")
    return parser


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _detect(options: argparse.Namespace) -> int:
    found = describe(options.file, family=options.family)
    if options.json:
        _say(json.dumps(found, indent=2))
    else:
        for key, value in found.items():
            _say(f"{key:15} {value}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    chosen = {name: getattr(options, name) for name in ("layout", "time_kernel") if getattr(options, name) is not None}
    model: Any = convert(
        options.file,
        options.output,
        family=options.family,
        num_classes=options.num_classes,
        source=options.source,
        license=options.license,
        dtype=DTYPES[options.dtype],
        overwrite=options.overwrite,
        approximate=options.approximate,
        **chosen,
    )
    for kernel, kept in model.approximation.items():
        _say(f"{kernel}: {kept:.1%} of the kernel kept")
    _say(f"{options.output}: {model.pretrained_cfg['family']}, {len(model.state_dict())} tensors")
    return 0


def _verify(options: argparse.Namespace) -> int:
    rows = verify(options.file, options.against, family=options.family)
    for row in rows:
        _say(f"{row.output:15} {row.error:.2e} {'ok' if row.error <= options.tolerance else 'FAILED'}")
    return int(any(not row.error <= options.tolerance for row in rows))


def _diff(options: argparse.Namespace) -> int:
    rows = diff(options.first, options.second)
    for row in rows:
        _say(f"{row.key}: {row.what}")
    _say(f"{len(rows)} tensors differ" if rows else "the same tensors")
    return int(bool(rows))


def _card(options: argparse.Namespace) -> int:
    text = card(options.file, repo_id=options.repo)
    if options.output is None:
        _say(text.rstrip())
        return 0
    path: Path = check_output(options.output, overwrite=options.overwrite, inputs=(options.file,))
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return 0


def _publish(options: argparse.Namespace) -> int:
    publication = prepare(options.file, options.repo)
    for name, size in publication.sizes().items():
        _say(f"{options.repo}/{name}: {size:,} bytes")
    if options.dry_run:
        _say("nothing sent")
        return 0
    _say(f"commit {publish(publication, private=options.private, message=options.message)}")
    return 0


def _pull(options: argparse.Namespace) -> int:
    _say(str(pull(options.name)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
