"""Write a run as a folder of weights: ``nl3d export`` as a script.

python examples/export.py runs/walkers exported --half --license Apache-2.0
"""

import sys

from nl3d.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
