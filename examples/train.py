r"""Train a network for video person re-identification: ``nl3d train`` as a script, for launchers that take a script.

The paper's recipe on MARS, on eight GPUs; the same command resumes it after an interruption:

    accelerate launch --num_processes 8 examples/train.py --dataset mars --root MARS --output runs/mars

A small network on synthetic walkers, without any file, on two processes of one CPU:

    torchrun --nproc-per-node 2 examples/train.py --dataset walkers --model small_3d_nl --height 64 --width 32 \
        --num-pids 16 --epochs 60 --output runs/walkers
"""

import sys

from nl3d.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
