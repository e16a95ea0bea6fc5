"""Make of a run a folder that `nl3d.resnet3d50_nl(FOLDER)` (or whichever network it is) and timm read.

python examples/export.py runs/walkers exported --half --license Apache-2.0
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nl3d.training.export import export_run


def main() -> int:
    """Run the command line; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="of the last or the best epoch")
    parser.add_argument("--half", action="store_true", help="float16, in half of the bytes")
    parser.add_argument("--license", default="other", help="SPDX identifier of the weights' licence")
    parser.add_argument("--description", default="", help="what they were trained on")
    arguments = parser.parse_args()
    about = {name: value for name in ("license", "description") if (value := getattr(arguments, name))}
    try:
        export_run(arguments.run, arguments.folder, arguments.which, half=arguments.half, **about)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in arguments.folder.glob("*.safetensors"))
    print(f"{arguments.folder}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
